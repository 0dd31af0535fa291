package harness

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// WorkloadPath is the workload's binary in its image.
const WorkloadPath = "/workload"

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
	binary, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Name: strings.TrimPrefix(WorkloadPath, "/"), Mode: 0o755, Size: int64(len(binary))}
	if err := writer.WriteHeader(header); err != nil {
		return "", err
	}
	if _, err := writer.Write(binary); err != nil {
		return "", err
	}
	if err := writer.Close(); err != nil {
		return "", err
	}
	image, err := e.importImage("workload", &archive, `ENTRYPOINT ["`+WorkloadPath+`"]`)
	if err != nil {
		return "", err
	}
	if workloadImages.byHost == nil {
		workloadImages.byHost = make(map[string]string)
	}
	workloadImages.byHost[e.Host] = image
	return image, nil
}

// importImage makes an image of one layer from a tar stream. It is removed at
// the end of the run, by its label.
func (e *Engine) importImage(name string, archive io.Reader, changes ...string) (string, error) {
	image := "portwatcher-test/" + name + ":" + run
	arguments := []string{"import"}
	for _, change := range append(changes, "LABEL "+Label, "LABEL "+runLabel()) {
		arguments = append(arguments, "--change", change)
	}
	command := exec.Command("docker", append(arguments, "-", image)...)
	command.Env = e.environment()
	command.Stdin = archive
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker import %s: %w: %s", image, err, output)
	}
	return image, nil
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
	image := "portwatcher-test/portwatcher:" + run
	_, err = Default.Docker("build", "--quiet", "--target", "prebuilt", "--file", filepath.Join(root, "Dockerfile"),
		"--label", Label, "--label", runLabel(), "--tag", image, buildContext)
	return image, err
})

// Rights are the options of docker run that give portwatcher's container what
// it needs, as deploy/compose.yaml does.
var Rights = []string{
	"--pid=host", "--read-only", "--tmpfs=/run:size=1m,mode=0755", "--cap-drop=ALL",
	"--cap-add=SYS_PTRACE", "--cap-add=SYS_ADMIN", "--cap-add=DAC_READ_SEARCH", "--cap-add=NET_ADMIN",
	"--security-opt=no-new-privileges", "--security-opt=apparmor=unconfined",
	"--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro",
	"--volume=/var/run/docker.sock:/var/run/docker.sock:ro",
}

// inContainer is the command that runs portwatcher in a container with these
// rights and removes it at its end.
func inContainer(t testing.TB, name, monitor string, rights, arguments []string) *exec.Cmd {
	t.Helper()
	image, err := portwatcherImage()
	if err != nil {
		t.Fatal(err)
	}
	options := []string{"run", "--rm", "--name", name, "--label", Label, "--label", runLabel(),
		"--env", "MONITOR_CONTAINERS=" + monitor}
	options = append(append(options, rights...), image)
	t.Cleanup(func() {
		if err := Default.Remove(name); err != nil {
			t.Error(err)
		}
	})
	return exec.Command("docker", append(options, arguments...)...)
}
