package model

// State is an open endpoint, with the identities by which its sockets are recognised
// when portwatcher starts again.
type State struct {
	Open
	// Sockets is nil where the sockets are not known.
	Sockets *Sockets `json:"sockets,omitempty"`
}

// Sockets are the kernel sockets of an open endpoint.
type Sockets struct {
	Namespace Namespace `json:"namespace"`
	// Cookies and Inodes have one entry for each socket, in the same order. An
	// inode is 0 where it is not known.
	Cookies []uint64 `json:"cookies"`
	Inodes  []uint32 `json:"inodes"`
	// ByInode means that the cookies are made from inodes: the source was /proc.
	ByInode bool `json:"by_inode,omitempty"`
	// IPv6Only means that none of them takes IPv4 traffic.
	IPv6Only bool `json:"ipv6_only,omitempty"`
}
