package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// suspicion is an error by which a reader found that a database is damaged.
type suspicion struct {
	store *store
	why   error
}

// examine begins a new database if the one that a reader found damaged is the one in
// use.
func (w *writer) examine(ctx context.Context, s suspicion) {
	if s.store != w.j.store {
		return
	}
	if err := w.replace(s.why); err != nil {
		w.failed(err)
	}
	w.attempt(ctx)
}

// replace moves a damaged database aside. The next transaction begins a
// new one, which receives the state, the cursors and the batch.
func (w *writer) replace(why error) error {
	j := w.j
	if j.place.Path == "" {
		return why
	}
	w.abandon()
	aside, err := j.setAside(j.place.Path, why)
	if err != nil {
		return err
	}
	if j.options.SetAside != nil {
		j.options.SetAside(aside)
	}
	return nil
}

// abandon closes the database for good.
func (w *writer) abandon() {
	if w.j.store == nil {
		return
	}
	if err := w.j.drop(); err != nil {
		w.j.options.Logger.WithError(err).Warn("The old database of the journal could not be closed.")
	}
	w.rebased = true
	w.run, w.reserved = 0, 0
	w.states.rebase()
	w.drifts.rebase()
	w.recorder.forget()
}

// checkFile begins a new database where the file was removed: what is written
// to a removed file is lost.
func (w *writer) checkFile() {
	j := w.j
	if j.place.Path == "" || j.store == nil {
		return
	}
	info, err := os.Stat(j.place.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		j.options.Logger.Errorf("The journal %s was removed while it was in use. A new one begins: what the old one recorded is lost.", j.place)
		w.abandon()
	case err == nil && !os.SameFile(info, j.store.file) && !w.replaced:
		w.replaced = true
		j.options.Logger.Errorf("The journal %s was replaced by another file while it was in use. What is recorded now is lost at the end: restart portwatcher, and stop it before you replace the file.", j.place)
	}
}

// setAside renames a damaged database.
func (j *Journal) setAside(path string, why error) (aside string, err error) {
	stamped := path + ".corrupt-" + j.options.Now().UTC().Format("20060102T150405Z")
	aside = stamped
	for n := 2; exists(aside); n++ {
		aside = fmt.Sprintf("%s-%d", stamped, n)
	}
	err = os.Rename(path, aside)
	if err == nil {
		err = ignoreMissing(os.Rename(path+"-wal", aside+"-wal"))
	}
	if err == nil {
		err = ignoreMissing(os.Remove(path + "-shm"))
	}
	if err != nil {
		return "", fmt.Errorf("move the damaged journal aside: %w", err)
	}
	j.options.Logger.WithError(why).WithField("aside", aside).
		Error("The journal is damaged. It was moved aside and a new one begins: what it recorded is only in the file set aside.")
	return aside, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
