package model

// Forward is the container for which the engine publishes a port of the host.
type Forward struct {
	Container ContainerRef `json:"container"`
	// Port is the one inside the container.
	Port uint16 `json:"port"`
	// Engine means that a process of the engine holds the socket, which serves the container.
	// False: a process of the host holds the port that the container publishes, too. Which of
	// the two a connection reaches depends on where it comes from.
	Engine bool `json:"engine"`
}

// Equal reports whether two forwards, which may be nil, are the same.
func (f *Forward) Equal(other *Forward) bool {
	if f == nil || other == nil {
		return f == other
	}
	return f.Container.Same(&other.Container) && f.Port == other.Port && f.Engine == other.Engine
}
