package notify

import "sync"

// maxTakers bounds the notifications of which takers keeps the recipients.
const maxTakers = 100

// takers remembers for which recipients a server has taken a notification that it has not taken
// for the others, so that the next try is for the others only. It is a help and no record: after a
// restart they may get it once more, with the same Message-ID. The zero value is empty. It is
// safe for concurrent use.
type takers struct {
	mutex sync.Mutex
	ids   []string // in the order of their first recipient
	by    map[string]map[string]bool
}

func (t *takers) has(id, recipient string) bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.by[id][recipient]
}

func (t *takers) add(id, recipient string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.by == nil {
		t.by = map[string]map[string]bool{}
	}
	if t.by[id] == nil {
		if len(t.ids) == maxTakers {
			delete(t.by, t.ids[0])
			t.ids = t.ids[1:]
		}
		t.ids = append(t.ids, id)
		t.by[id] = map[string]bool{}
	}
	t.by[id][recipient] = true
}

func (t *takers) forget(id string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	delete(t.by, id)
	for i, known := range t.ids {
		if known == id {
			t.ids = append(t.ids[:i:i], t.ids[i+1:]...)
			return
		}
	}
}
