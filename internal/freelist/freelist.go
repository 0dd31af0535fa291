// Package freelist keeps values for reuse.
package freelist

// List keeps values up to its capacity. Unlike a sync.Pool it keeps them at a garbage
// collection, so that a steady user allocates nothing. It is safe for concurrent use.
type List[T any] chan *T

// New returns a list that keeps up to count values.
func New[T any](count int) List[T] { return make(List[T], count) }

// Take returns a value that was given back, or a new one.
func (l List[T]) Take() *T {
	select {
	case v := <-l:
		return v
	default:
		return new(T)
	}
}

// Give returns a value to the list. The caller must not use it any more.
func (l List[T]) Give(v *T) {
	select {
	case l <- v:
	default:
	}
}
