package sink

import (
	"context"
	"fmt"
	"io"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

const (
	// outputCapacity is how many events wait for a slow reader of standard output,
	// and outputShare how many of one container.
	outputCapacity, outputShare = 1 << 17, 1 << 13
	// outputBatch is how many events are taken at a time, and outputBuffer about how many
	// bytes are written at a time.
	outputBatch, outputBuffer = 256, 64 << 10
)

// Writer writes events to standard output, behind a [Queue] of its own.
type Writer struct {
	*Queue[*model.Event]
	w      io.Writer
	format output.Format
	lines  []byte // not written yet
}

// NewWriter returns a writer of events to w. Nothing is written before
// [Writer.Run].
func NewWriter(w io.Writer, format output.Format) *Writer {
	return newWriter(w, format, outputCapacity, outputShare)
}

func newWriter(w io.Writer, format output.Format, capacity, share int) *Writer {
	return &Writer{Queue: NewQueue[*model.Event]("output", capacity, share), w: w, format: format}
}

// Run writes events as they come until ctx ends, and then those that wait. It returns
// the first error of the writer. It blocks as long as the writer blocks.
func (w *Writer) Run(ctx context.Context) error {
	for {
		select {
		case <-w.Ready():
			if err := w.writeWaiting(); err != nil {
				return err
			}
		case <-ctx.Done():
			return w.writeWaiting()
		}
	}
}

func (w *Writer) writeWaiting() error {
	var batch [outputBatch]*model.Event
	for {
		events := w.Take(batch[:0], outputBatch)
		for _, e := range events {
			w.lines = output.AppendEvent(w.lines, w.format, e)
			if len(w.lines) >= outputBuffer {
				if err := w.flush(); err != nil {
					return err
				}
			}
		}
		if len(events) < outputBatch {
			return w.flush()
		}
	}
}

func (w *Writer) flush() error {
	if len(w.lines) == 0 {
		return nil
	}
	if _, err := w.w.Write(w.lines); err != nil {
		return fmt.Errorf("write events to standard output: %w", err)
	}
	w.lines = w.lines[:0]
	return nil
}
