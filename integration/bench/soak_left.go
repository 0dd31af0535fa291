package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leftPatience bounds the wait until portwatcher has let everything go, and until
	// the stages of its pipeline balance.
	leftPatience = 30 * time.Second
	metricsWait  = 10 * time.Second
)

// holding is what a portwatcher keeps.
type holding struct {
	goroutines, descriptors, namespaces int
	memory                              int64 // VmRSS in bytes
}

// readHolding asks a portwatcher that serves at an address, and the kernel.
func readHolding(pid int, address string) (h holding, err error) {
	metrics, err := scrape(address)
	if err != nil {
		return h, err
	}
	h.goroutines = int(metrics["go_goroutines"])
	if h.memory, err = residentMemory(pid); err != nil {
		return h, err
	}
	h.descriptors, h.namespaces, err = readDescriptors(pid)
	return h, err
}

// awaitHolding waits until no more is held than before, or patience ends, and returns
// what is held then.
func awaitHolding(ctx context.Context, pid int, address string, before holding) (h holding, err error) {
	err = untilEach(ctx, slowly, memoryPatience, func() (err error) {
		if h, err = readHolding(pid, address); err != nil {
			return err
		}
		if h.goroutines > before.goroutines || h.descriptors > before.descriptors || h.namespaces > before.namespaces ||
			float64(h.memory) >= aimRelease*float64(before.memory) {
			return errStillHeld
		}
		return nil
	})
	if errors.Is(err, errStillHeld) {
		err = nil // the table says it
	}
	return h, err
}

var errStillHeld = errors.New("more is held than before")

// scrape reads the metrics, each by its name and labels as they are written.
func scrape(address string) (map[string]float64, error) {
	client := &http.Client{Timeout: metricsWait, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + pathMetrics)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", pathMetrics, response.Status)
	}
	metrics := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if metrics[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", pathMetrics, line, err)
		}
	}
	return metrics, lines.Err()
}

// unbalanced returns which stages of the pipeline do not account for what entered
// them, or did not get what left the stage before.
func unbalanced(metrics map[string]float64, source string) (problems []string) {
	total := func(stage, what string) float64 {
		return metrics[fmt.Sprintf(`portwatcher_pipeline_total{stage=%q,what=%q}`, stage, what)]
	}
	equal := func(what string, got, want float64) {
		if got != want {
			problems = append(problems, fmt.Sprintf("%s: %.0f, want %.0f", what, got, want))
		}
	}
	stages := []string{"changes", "bursts", "output", "journal"}
	if source == sourceEBPF {
		stages = append(stages, "kernel", "facts", "counts")
		equal("facts in, of the kernel's records", total("facts", "in"), total("kernel", "out"))
		equal("counts in, of the kernel's", total("counts", "in"), total("kernel", "counted"))
	} else {
		stages = append(stages, "notifications")
	}
	for _, stage := range stages {
		held, known := metrics[fmt.Sprintf(`portwatcher_pipeline_held{stage=%q}`, stage)]
		if !known {
			problems = append(problems, "there is no stage "+stage)
		}
		equal(stage+" out, counted, held, dropped and lost",
			total(stage, "out")+total(stage, "counted")+held+total(stage, "dropped")+total(stage, "lost"), total(stage, "in"))
	}
	sent := total("changes", "out") + total("bursts", "counted")
	equal("output in, of changes and bursts", total("output", "in"), sent)
	equal("journal in, of changes and bursts", total("journal", "in"), sent)
	return problems
}

// awaitBalance waits until all stages balance: while something happens on the host, some
// of it is between two stages. It returns what does not balance in the end.
func awaitBalance(ctx context.Context, address, source string) (problems []string, err error) {
	err = untilEach(ctx, slowly, leftPatience, func() error {
		metrics, err := scrape(address)
		if err != nil {
			return err
		}
		if problems = unbalanced(metrics, source); len(problems) > 0 {
			return errUnbalanced
		}
		return nil
	})
	if errors.Is(err, errUnbalanced) {
		err = nil // the table says it
	}
	return problems, err
}

var errUnbalanced = errors.New("the stages do not balance")

// readDescriptors counts the descriptors of a process, and the network namespaces other
// than its own that they keep alive: those of namespace files, and those of sockets,
// which do not show in /proc: a copy of each is asked for it.
func readDescriptors(pid int) (descriptors, namespaces int, err error) {
	folder := fmt.Sprintf("/proc/%d", pid)
	own, err := os.Readlink(folder + "/ns/net")
	if err != nil {
		return 0, 0, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	files, err := filepath.Glob(folder + "/fd/*")
	if err != nil {
		return 0, 0, err
	}
	found := map[string]bool{}
	for _, file := range files {
		target, err := os.Readlink(file)
		if err == nil && strings.HasPrefix(target, "socket:") {
			target, err = socketNamespace(process, number([]byte(filepath.Base(file))))
		}
		if err == nil && strings.HasPrefix(target, "net:") && target != own { // else it is closed since
			found[target] = true
		}
	}
	return len(files), len(found), nil
}

// socketNamespace returns the network namespace, "net:[4026531840]", of a socket of
// another process.
func socketNamespace(process, descriptor int) (string, error) {
	socket, err := unix.PidfdGetfd(process, descriptor, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(socket)
	namespace, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return "", err
	}
	defer unix.Close(namespace)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", namespace))
}
