//go:build linux

package guest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// kmsgPrefix marks the agent's lines in the kernel's log.
const kmsgPrefix = "sandbox-agent: "

// kernelLog is a slog handler that writes records to the kernel's log, which
// is there before any other log and reaches the console.
type kernelLog struct {
	mu  *sync.Mutex
	out io.Writer
	// text formats what follows the message into buffer.
	text   slog.Handler
	buffer *bytes.Buffer
}

// openLog opens the kernel's log. If that cannot be done, the log goes to the
// standard error stream, which is the console.
func openLog() *slog.Logger {
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return slog.New(newKernelLog(os.Stderr))
	}
	return slog.New(newKernelLog(kmsg))
}

func newKernelLog(out io.Writer) *kernelLog {
	buffer := new(bytes.Buffer)
	return &kernelLog{
		mu: new(sync.Mutex), out: out, buffer: buffer,
		text: slog.NewTextHandler(buffer, &slog.HandlerOptions{
			ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
				if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey || attr.Key == slog.MessageKey) {
					return slog.Attr{} // the kernel has a time, and we a prefix
				}
				return attr
			},
		}),
	}
}

// Enabled implements [slog.Handler].
func (k *kernelLog) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements [slog.Handler]. One record is one write, as /dev/kmsg
// wants it, with the syslog level in front.
func (k *kernelLog) Handle(ctx context.Context, record slog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.buffer.Reset()
	if err := k.text.Handle(ctx, record); err != nil {
		return err
	}
	line := record.Message + " " + k.buffer.String()
	line = strings.ReplaceAll(strings.TrimSpace(line), "\n", "; ")
	_, err := fmt.Fprintf(k.out, "<%d>%s%s\n", syslogLevel(record.Level), kmsgPrefix, line)
	return err
}

// syslogLevel is the severity of RFC 5424 that the kernel uses, too. Errors are
// alerts, because the console of a guest that cannot start has to show why,
// also where the kernel was told to be quiet.
func syslogLevel(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 1
	case level >= slog.LevelWarn:
		return 4
	default:
		return 6
	}
}

// WithAttrs implements [slog.Handler].
func (k *kernelLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	clone := *k
	clone.text = k.text.WithAttrs(attrs)
	return &clone
}

// WithGroup implements [slog.Handler].
func (k *kernelLog) WithGroup(name string) slog.Handler {
	clone := *k
	clone.text = k.text.WithGroup(name)
	return &clone
}
