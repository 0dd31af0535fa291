// Package freelist keeps values for reuse between short uses.
package freelist

// List keeps up to its capacity of values. Unlike a sync.Pool it does not give
// them up at each garbage collection, so that a steady user allocates nothing.
// It is safe for concurrent use.
type List[T any] chan *T

// New returns a list that keeps up to count values.
func New[T any](count int) List[T] { return make(List[T], count) }

// Take returns a value of an earlier use, or a new one.
func (l List[T]) Take() *T {
	select {
	case v := <-l:
		return v
	default:
		return new(T)
	}
}

// Give hands a value back. It must not be used after that.
func (l List[T]) Give(v *T) {
	select {
	case l <- v:
	default:
	}
}
