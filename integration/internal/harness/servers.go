package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The real servers, and the Debian release they are taken from.
const (
	serversSuite    = "bookworm"
	serversPackages = "nginx-light,redis-server,postgresql,dnsmasq,openssh-server"
)

// errNoPackages is the error where the servers cannot be downloaded.
var errNoPackages = errors.New("needs debootstrap and Debian's packages")

// ServersImage returns an image of a small Debian with nginx, redis,
// PostgreSQL, dnsmasq and sshd in it, or ends the test by [Unavailable] where
// debootstrap or the packages cannot be downloaded. The first time on a machine
// it takes a minute or two; the result is kept in $XDG_CACHE_HOME or
// /var/cache, in the folder portwatcher-test.
func ServersImage(t testing.TB) string {
	t.Helper()
	image, err := serversImage()
	if errors.Is(err, errNoPackages) {
		Unavailable(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

var serversImage = sync.OnceValues(func() (string, error) {
	archive, err := serversArchive()
	if err != nil {
		return "", err
	}
	file, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer file.Close()
	image := testImage("servers")
	return image, Default.ImportArchive(context.Background(), image, file, imageChanges()...)
})

// serversArchive returns the path of the tar archive of the file system, made
// if it is not in the cache. Only one process at a time makes it.
func serversArchive() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = "/var/cache"
	}
	directory := filepath.Join(cache, "portwatcher-test")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(serversSuite + " " + serversPackages))
	archive := filepath.Join(directory, "servers-"+hex.EncodeToString(key[:6])+".tar")
	lock, err := os.OpenFile(archive+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(archive); !errors.Is(err, fs.ErrNotExist) {
		return archive, err
	}
	return archive, makeServers(directory, archive)
}

// makeServers installs the servers in a new folder and archives it.
func makeServers(directory, archive string) error {
	root, err := os.MkdirTemp(directory, "debootstrap-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	// Servers that are set up as their own users need access.
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		if err := shell("apt-get update && apt-get install --yes --no-install-recommends debootstrap"); err != nil {
			return fmt.Errorf("%w: %w", errNoPackages, err)
		}
	}
	if err := shell("debootstrap --variant=minbase --include=%s %s %s", serversPackages, serversSuite, root); err != nil {
		return fmt.Errorf("%w: %w", errNoPackages, err)
	}
	// Half of it is documentation, package lists and a compiler for queries.
	exclude := []string{"./dev/*", "./proc/*", "./sys/*", "./var/cache/apt", "./var/lib/apt/lists",
		"./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/lib/x86_64-linux-gnu/libLLVM*"}
	for i, pattern := range exclude {
		exclude[i] = "--exclude='" + pattern + "'"
	}
	partial := archive + ".partial"
	if err := shell("tar -C %s %s -cf %s .", root, strings.Join(exclude, " "), partial); err != nil {
		return err
	}
	return os.Rename(partial, archive)
}

func shell(format string, arguments ...any) error {
	line := fmt.Sprintf(format, arguments...)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	if output, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, output[max(0, len(output)-2000):])
	}
	return nil
}
