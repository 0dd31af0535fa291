package harness

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"portwatcher/internal/testutil/truth"
)

// workloadImages are the engines that have the workload's image.
var workloadImages struct {
	sync.Mutex
	byHost map[string]string
}

// WorkloadImage returns the image with the workload as its entry point and
// nothing else in it, which is made once for each engine.
func WorkloadImage(t testing.TB, e *Engine) string {
	t.Helper()
	image, err := workloadImage(e)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func workloadImage(e *Engine) (string, error) {
	workloadImages.Lock()
	defer workloadImages.Unlock()
	if image, found := workloadImages.byHost[e.Host]; found {
		return image, nil
	}
	path, err := workload()
	if err != nil {
		return "", err
	}
	image := testImage("workload")
	err = e.Import(context.Background(), image, []string{path}, imageChanges(`ENTRYPOINT ["`+truth.WorkloadPath+`"]`)...)
	if err != nil {
		return "", err
	}
	if workloadImages.byHost == nil {
		workloadImages.byHost = make(map[string]string)
	}
	workloadImages.byHost[e.Host] = image
	return image, nil
}

// testImage is the name of an image of this run of the tests.
func testImage(name string) string { return "portwatcher-test/" + name + ":" + run }

// imageChanges are the instructions of an image of this run, which is removed by its label.
func imageChanges(changes ...string) []string {
	return append(changes, "LABEL "+Label, "LABEL "+runLabel())
}

// portwatcherImage is the product's own image, built offline from the binary.
var portwatcherImage = sync.OnceValues(func() (string, error) {
	if _, err := portwatcher(); err != nil {
		return "", err
	}
	root, err := module()
	if err != nil {
		return "", err
	}
	buildContext, err := scratch() // with imageFolder in it
	if err != nil {
		return "", err
	}
	image := testImage("portwatcher")
	_, err = Default.Docker(slices.Concat(
		[]string{"build", "--quiet", "--target", "prebuilt", "--file", filepath.Join(root, "Dockerfile"), "--tag", image},
		labels, []string{buildContext})...)
	return image, err
})

// Rights are the options of docker run that give portwatcher's container what
// it needs, as deploy/compose.yaml does.
var Rights = []string{
	"--pid=host", "--read-only", "--tmpfs=/run:size=1m,mode=0755", "--cap-drop=ALL",
	"--cap-add=SYS_PTRACE", "--cap-add=SYS_ADMIN", "--cap-add=DAC_READ_SEARCH", "--cap-add=NET_ADMIN",
	"--security-opt=no-new-privileges", "--security-opt=apparmor=unconfined",
	"--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro",
	SocketMount("/var/run/docker.sock"),
}

// SocketMount is the option that mounts an engine's socket where portwatcher's container
// has it.
func SocketMount(path string) string { return "--volume=" + path + ":/var/run/docker.sock:ro" }

// StartSelf starts portwatcher in a container that runs beside the engine's others, in the
// background, with this socket and the journal in the folder state. More options are those
// of docker run.
func (e *Engine) StartSelf(t testing.TB, socket, state string, options ...string) *Container {
	t.Helper()
	image := testImage("self")
	err := e.Import(t.Context(), image, []string{Portwatcher(t)}, imageChanges(`ENTRYPOINT ["/portwatcher"]`, `ENV PATH=/`)...)
	if err != nil {
		t.Fatal(err)
	}
	return e.Start(t, Spec{
		Name: SelfName(t), Image: image, Command: []string{"run", "--format", "json"},
		Options: slices.Concat(Rights[:len(Rights)-1], []string{
			SocketMount(socket), "--volume=" + state + ":/var/lib/portwatcher", "--env=MONITOR_CONTAINERS=" + Pattern(t),
		}, options),
	})
}

// inContainer is the command that runs portwatcher in a container with these
// rights and removes it at its end.
func inContainer(t testing.TB, name, monitor string, rights, arguments []string) *exec.Cmd {
	t.Helper()
	image, err := portwatcherImage()
	if err != nil {
		t.Fatal(err)
	}
	Default.removeLater(t, name)
	return Default.Command(context.Background(), slices.Concat(
		[]string{"run", "--rm", "--name", name, "--env", "MONITOR_CONTAINERS=" + monitor}, labels, rights, []string{image}, arguments)...)
}
