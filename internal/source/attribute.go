package source

import (
	"fmt"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/tracker"
)

// attribute resolves the owner of each socket, and returns it by the index at the same
// place in indices.
func (e *Env) attribute(sockets []model.Socket, indices []int, members attribute.Members) map[int]tracker.Owner {
	owners, denied, err := e.Attributor.Attribute(sockets, members)
	e.reportTrouble(denied, err)
	result := make(map[int]tracker.Owner, len(owners))
	for i, owner := range owners {
		result[indices[i]] = tracker.Owner{Container: owner.Container, Processes: owner.Processes}
	}
	return result
}

// reportTrouble logs, one time each, why processes could not be found.
func (e *Env) reportTrouble(denied int, err error) {
	if denied > 0 && e.Notices.First("denied") {
		processes := "a process"
		if denied > 1 {
			processes = fmt.Sprintf("%d processes", denied)
		}
		e.Logger.Infof("The open files of %s cannot be listed, so a port that they hold is reported without its process. This needs the capabilities SYS_PTRACE and DAC_READ_SEARCH, and no denial by AppArmor (security_opt apparmor=unconfined) or by the system.", processes)
	}
	if err != nil && e.Notices.First("attribution") {
		e.Logger.WithError(err).Warn("Owners of sockets could not be read completely. This message is logged one time.")
	}
}
