package controller

// once calls f the first time that it is called with this key, as far as that is
// remembered. The caller holds the lock.
func (c *Controller) once(key string, f func()) {
	if c.said.add(key) {
		f()
	}
}

// maxSaid bounds what is remembered of that: keys name containers and namespaces,
// and thousands of them come and go in a day.
const maxSaid = 1000

// said remembers the latest keys.
type said struct {
	keys   map[string]struct{}
	oldest []string // in the order they came
}

// add returns false for a key that is remembered.
func (s *said) add(key string) bool {
	if _, ok := s.keys[key]; ok {
		return false
	}
	if s.keys == nil {
		s.keys = map[string]struct{}{}
	}
	if len(s.oldest) == maxSaid {
		delete(s.keys, s.oldest[0])
		s.oldest = s.oldest[1:]
	}
	s.keys[key] = struct{}{}
	s.oldest = append(s.oldest, key)
	return true
}
