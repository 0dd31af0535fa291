// Package netns opens and identifies the network namespaces of processes.
//
// An open [Handle] keeps its namespace alive, as does every socket opened
// through it: close it as soon as the namespace's socket is open.
package netns
