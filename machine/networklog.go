package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/gateway"
)

// NetworkLog calls emit for each entry of the log of the guest's network, the oldest
// first. With follow it goes on until the sandbox ends or ctx does. A line that is no
// entry, such as the last words of the network's process, is one with a message only.
func (s *Sandbox) NetworkLog(ctx context.Context, follow bool, emit func(gateway.Entry) error) error {
	return s.readLog(ctx, layout.NetworkLog, follow, networkEntries(emit))
}

// networkEntries makes entries of lines.
func networkEntries(emit func(gateway.Entry) error) func([]byte) error {
	return func(line []byte) error {
		var e gateway.Entry
		if err := json.Unmarshal(line, &e); err != nil {
			e = gateway.Entry{Message: string(line)}
		}
		return emit(e)
	}
}

// NetworkTail is what is added to the log of a guest's network from some moment on.
type NetworkTail struct{ reader logReader }

// TailNetworkLog begins a tail now, however long the log is already. The caller closes it.
func (s *Sandbox) TailNetworkLog() (*NetworkTail, error) {
	t := &NetworkTail{logReader{path: s.Files().Log(layout.NetworkLog)}}
	f, err := os.Open(t.reader.path)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil // and all of it is new
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.reader.use(f)
	return t, nil
}

// Read calls emit for each entry that was added since the last time. Of a log that was begun anew more than twice
// meanwhile, the first ones are gone.
func (t *NetworkTail) Read(emit func(gateway.Entry) error) error {
	t.reader.emit = networkEntries(emit)
	return t.reader.more()
}

// Close ends the tail.
func (t *NetworkTail) Close() { t.reader.close() }
