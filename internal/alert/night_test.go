package alert

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// night is a project with what happens to it between evening and morning.
type night struct{ *rig }

// start opens the ports of a service: the web publishes 80, the others listen on their network.
func (n night) start(container string, source model.Source) {
	delete(n.started, container)
	delete(n.stopped, container)
	n.event(fmt.Sprintf("opened %s %s", container, portsOf(container)), by(source))
	if strings.HasPrefix(container, "shop/web/") {
		// By IPv6 the host does not forward to it.
		n.event("opened "+container+" 80 network", by(source), func(e *model.Event) { e.Address = netip.IPv6Unspecified() })
		n.event("opened "+container+" 9090 loopback", by(source)) // its own status page
	}
}

func portsOf(container string) string {
	switch container[:len(container)-2] {
	case "shop/web":
		return "80 published"
	case "shop/db":
		return "5432 network"
	}
	return "8000 network"
}

// stop ends a container as Docker does: its processes close their ports, and then it is gone.
func (n night) stop(container string) {
	n.event(fmt.Sprintf("closed %s %s", container, portsOf(container)), by(model.SourceDestroy))
	if strings.HasPrefix(container, "shop/web/") {
		n.event("closed "+container+" 80 network", by(model.SourceDestroy), func(e *model.Event) { e.Address = netip.IPv6Unspecified() })
	}
	n.wait(2 * time.Second)
	n.stopped[container] = true
}

// die ends a container at once.
func (n night) die(container string) {
	n.event(fmt.Sprintf("closed %s %s", container, portsOf(container)), by(model.SourceEngine))
	n.stopped[container] = true
}

// TestNight is a night of a project with the standard rules: deploys, restarts, a service that is
// scaled, one that crashes again and again, a backup job that opens ports, and then what somebody
// has to know. Each message is listed.
func TestNight(t *testing.T) {
	n := night{newRig(t, parse(t, `receivers: [{name: ops, webhook: {url: "http://localhost"}}]`))}
	containers := []string{"shop/web/1", "shop/api/1", "shop/db/1"}
	for _, c := range containers {
		n.start(c, model.SourceSockDiag)
	}
	n.wait(time.Hour)
	n.want("the first start of portwatcher")

	for version := 2; version <= 4; version++ { // each deploy makes new containers
		for i, c := range containers {
			n.stop(c)
			containers[i] = fmt.Sprintf("%s/%d", c[:len(c)-2], version)
			n.start(containers[i], model.SourceEBPF)
		}
		n.wait(20 * time.Minute)
	}
	for _, c := range containers { // docker compose restart
		n.stop(c)
		n.wait(5 * time.Second)
		n.start(c, model.SourceEBPF)
	}
	n.wait(time.Hour)
	n.stop("shop/web/4") // a restart of a service that takes its time
	delete(n.stopped, "shop/web/4")
	n.started["shop/web/4"] = n.now
	n.wait(90 * time.Second)
	n.start("shop/web/4", model.SourceEBPF)
	n.wait(10 * time.Minute)
	n.want("three deploys and two restarts")

	for replica := 5; replica <= 8; replica++ {
		n.start(fmt.Sprintf("shop/api/%d", replica), model.SourceEBPF)
	}
	n.wait(time.Hour)
	for replica := 5; replica <= 8; replica++ {
		n.stop(fmt.Sprintf("shop/api/%d", replica))
	}
	n.wait(10 * time.Minute)
	n.want("scaled up and down")

	for range 100 { // a crash loop
		n.start("shop/web/9", model.SourceEBPF)
		n.wait(3 * time.Second)
		n.die("shop/web/9")
		n.wait(10 * time.Second)
	}
	n.want("a crash loop")

	for i := range 500 { // the backup of the database, by ports that the kernel chooses
		n.event(fmt.Sprintf("opened shop/db/4 %d network", 32768+i))
		n.wait(200 * time.Millisecond)
		n.event(fmt.Sprintf("closed shop/db/4 %d network", 32768+i))
	}
	for range 20 { // and a transfer by a published port, too short to be seen
		n.event("opened shop/db/4 2049 published", transient)
		n.event("closed shop/db/4 2049 published", transient)
	}
	n.wait(10 * time.Minute)
	n.want("a backup")

	n.event("closed shop/web/4 80 published") // its server reloads
	n.wait(10 * time.Second)
	n.event("opened shop/web/4 80 published")
	n.wait(10 * time.Minute)
	n.want("a reload of the web server")

	n.restart()
	for _, c := range containers { // portwatcher is updated
		n.event(fmt.Sprintf("changed %s %s", c, portsOf(c)), by(model.SourceRestart))
	}
	n.event("gap", func(e *model.Event) { e.Reason = "portwatcher was not running" })
	n.wait(10 * time.Minute)
	n.want("an update of portwatcher", "+1d 01:05:59 ops: blind")

	n.event("opened shop/api/4 4444 published") // somebody opens a port in a container that runs
	n.event("changed shop/db/4 5432 published", func(e *model.Event) {
		e.Change, e.PreviousExposure = model.ChangeExposure, model.Network
	})
	n.wait(10 * time.Minute)
	n.stop("shop/db/4") // a redeploy publishes the database
	n.start("shop/db/5", model.SourceEBPF)
	n.event("closed shop/db/5 5432 network")
	n.wait(time.Hour)
	n.die("shop/db/5")
	n.event("opened shop/db/6 5432 published")
	n.wait(10 * time.Minute)
	n.event("closed shop/web/4 80 published") // the web server dies, and its container goes on
	n.wait(10 * time.Minute)
	n.event("opened shop/web/4 80 published")
	n.wait(10 * time.Minute)
	n.want("what somebody has to know",
		"+1d 01:15:59 ops: new-port shop/api/4444/tcp, widened shop/db/5432/tcp",
		"+1d 02:26:01 ops: widened shop/db/5432/tcp",
		"+1d 02:36:31 ops: gone shop/web/80/tcp",
		"+1d 02:46:01 ops: gone shop/web/80/tcp resolved")
}
