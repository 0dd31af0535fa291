package model

// State is an endpoint that is open, with what its sockets are recognised by
// when portwatcher starts again.
type State struct {
	Open
	// Sockets is nil where they are not known.
	Sockets *Sockets `json:"sockets,omitempty"`
}

// Sockets are the kernel sockets of an open endpoint.
type Sockets struct {
	Namespace Namespace `json:"namespace"`
	// Cookies and Inodes have one entry for each socket, in the same order. An
	// inode is 0 where it is not known.
	Cookies []uint64 `json:"cookies"`
	Inodes  []uint32 `json:"inodes"`
	// ByInode says that the cookies are made up from inodes: the source was
	// /proc.
	ByInode bool `json:"by_inode,omitempty"`
	// IPv6Only says that none of them takes IPv4 traffic.
	IPv6Only bool `json:"ipv6_only,omitempty"`
}
