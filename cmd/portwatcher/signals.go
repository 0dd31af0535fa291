package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// exitSignal plus the number of a signal is the exit status of a process that the signal
// ended, as shells report it: 130 for SIGINT, 143 for SIGTERM.
const exitSignal = 128

// writeTime is how long the last line may take: standard error may be a pipe without a
// reader.
const writeTime = time.Second

// untilSignal returns a context that the first SIGINT or SIGTERM ends. The second one ends
// the process, whatever it waits for.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		second := (<-signals).(syscall.Signal) // the only type on this system
		exit := func() { os.Exit(exitSignal + int(second)) }
		time.AfterFunc(writeTime, exit)
		fmt.Fprintf(os.Stderr, "portwatcher: stopped at once by a second signal (%s): events that were not yet printed or written to the journal are lost\n", second)
		exit()
	}()
	return ctx
}
