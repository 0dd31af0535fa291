package source

import (
	"context"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

// scans scans several times in a row, unless nothing has changed.
func (w *Watcher) scans(ctx context.Context, count int) error {
	for i := range max(count, 1) {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-w.poke:
				if err := w.scan(ctx); err != nil {
					return err
				}
				continue
			case <-w.readable():
				if err := w.receive(); err != nil {
					return err
				}
				continue
			case <-time.After(w.session.settings.BurstDelay):
			}
		}
		now := clock.Now()
		if w.quietly = w.unchanged(now); w.quietly {
			w.lastScan.Store(int64(now))
			continue
		}
		if err := w.scan(ctx); err != nil {
			return err
		}
	}
	return nil
}

// scan takes one snapshot and sends it, with the owners of what is new in it.
func (w *Watcher) scan(ctx context.Context) error {
	if w.receiver != nil { // the dump need not find earlier closes
		if err := w.receive(); err != nil {
			return err
		}
	}
	w.busy()
	began, facts, epoch := clock.Now(), w.facts.Load(), w.env.members(w.id).Epoch
	sockets, err := w.session.dump(w.sockets[:0])
	w.sockets = sockets
	w.idle()
	if err != nil {
		return err
	}
	now := clock.Now()
	if o := w.env.Observer; o != nil {
		o.ObserveScan(w.session.source, now.Sub(began))
	}
	if inOrder, err := w.inOrder(ctx); !inOrder || err != nil {
		w.lastScan.Store(int64(now))
		return err
	}
	q := &w.question
	q.Watcher, q.Resolved, q.Epoch = w, false, epoch
	q.Snapshot.Began, q.Snapshot.Time, q.Snapshot.Source, q.Snapshot.Sockets, q.Snapshot.New = began, now, w.session.source, sockets, nil
	if !w.env.ask(q) {
		return nil
	}
	if len(q.Unknown) > 0 {
		w.attribute(q)
		if !w.env.ask(q) {
			return nil
		}
		w.setSecond()
	}
	w.session.quiet.dumped(began, facts, epoch, sockets, len(q.Unknown) == 0)
	w.scanned = true
	w.lastScan.Store(int64(now))
	return nil
}

func (w *Watcher) attribute(q *Scan) {
	w.busy()
	defer w.idle()
	directory := w.env.Directory.Load()
	members := w.env.members(w.id)
	fresh := make([]model.Socket, len(q.Unknown))
	for i, index := range q.Unknown {
		fresh[i] = q.Snapshot.Sockets[index]
	}
	owners, denied, err := w.env.Attributor.Attribute(fresh, attribute.Members{
		Lookup: directory.Lookup, Namespace: members.Containers, Host: members.Host, Forms: directory.Forms,
	})
	w.env.reportTrouble(denied, err)
	q.Snapshot.New = make(map[int]tracker.Owner, len(owners))
	for i, owner := range owners {
		q.Snapshot.New[q.Unknown[i]] = tracker.Owner{Container: owner.Container, Processes: owner.Processes}
	}
	q.Epoch, q.Resolved = members.Epoch, true
}

// ScanNamespace reads a namespace one time, and resolves the owners of all its sockets. It
// reads /proc where sock_diag cannot be used and the mode allows that.
func ScanNamespace(env *Env, id model.Namespace) (scan Scan, err error) {
	w := NewWatcher(env, id)
	for range 2 { // the second time through /proc, where sock_diag fails
		if w.session, err = w.open(env.Settings.Load()); err == nil {
			scan.Snapshot.Began = clock.Now()
			w.sockets, err = w.session.dump(w.sockets[:0])
			scan.Snapshot.Time, scan.Snapshot.Source = clock.Now(), w.session.source
			w.session.close()
		}
		if err == nil || !w.fallBack(err) {
			break
		}
	}
	if err != nil {
		return scan, err
	}
	scan.Snapshot.Sockets = w.sockets
	for i := range w.sockets {
		scan.Unknown = append(scan.Unknown, i)
	}
	w.attribute(&scan)
	return scan, nil
}
