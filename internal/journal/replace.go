package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// suspicion is what a reader met that says that a database is damaged.
type suspicion struct {
	store *store
	why   error
}

// examine begins a new database if the one that a reader met damaged is still
// the one in use.
func (w *writer) examine(ctx context.Context, s suspicion) {
	if s.store != w.j.store {
		return
	}
	if err := w.replace(s.why); err != nil {
		w.failed(err)
	}
	w.attempt(ctx)
}

// replace moves a damaged database aside. The next attempt to write begins a
// new one, with all that is known.
func (w *writer) replace(why error) error {
	j := w.j
	if j.place.Path == "" {
		return why
	}
	w.letGo()
	aside, err := j.setAside(j.place.Path, why)
	if err != nil {
		return err
	}
	if j.options.SetAside != nil {
		j.options.SetAside(aside)
	}
	return nil
}

// letGo closes the database for good.
func (w *writer) letGo() {
	w.j.swap.Lock()
	defer w.j.swap.Unlock()
	if w.j.store == nil {
		return
	}
	if err := w.j.store.close(); err != nil {
		w.j.options.Logger.WithError(err).Warn("The database that is given up could not be closed.")
	}
	w.j.store = nil
	w.rebased = true
	w.run, w.reserved = 0, 0
	w.states.rebase()
	w.origins.forget()
}

// reopen opens a database after one was given up.
func (w *writer) reopen() error {
	j := w.j
	if j.store != nil {
		return nil
	}
	s, _, err := openStore(j.place.Path)
	if err != nil {
		return err
	}
	j.swap.Lock()
	defer j.swap.Unlock()
	j.store = s
	return nil
}

// watchFile begins a new database where the file was removed: what is written
// to that is lost.
func (w *writer) watchFile() {
	j := w.j
	if j.place.Path == "" || j.store == nil {
		return
	}
	info, err := os.Stat(j.place.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		j.options.Logger.Errorf("The journal %s was removed while it was in use. A new one is begun: what it recorded is lost.", j.place)
		w.letGo()
	case err == nil && !os.SameFile(info, j.store.file) && !w.misplaced:
		w.misplaced = true
		j.options.Logger.Errorf("Another file took the place of the journal %s while it was in use. What is recorded now is lost at the end: restart portwatcher, and stop it before the file is replaced.", j.place)
	}
}

// setAside moves a damaged database out of the way.
func (j *Journal) setAside(path string, why error) (aside string, err error) {
	stamped := path + ".corrupt-" + j.options.Now().UTC().Format("20060102T150405Z")
	aside = stamped
	for n := 2; exists(aside); n++ {
		aside = fmt.Sprintf("%s-%d", stamped, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move the damaged journal aside: %w", err)
	}
	err = os.Rename(path+"-wal", aside+"-wal")
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if removed := os.Remove(path + "-shm"); removed != nil && !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if err != nil {
		return "", fmt.Errorf("move the damaged journal aside: %w", err)
	}
	j.options.Logger.WithError(why).WithField("aside", aside).
		Error("The journal is damaged. It was moved aside and a new one begun: what it recorded is only in the file set aside.")
	return aside, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
