package wire

import (
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// streamWindow is what a stream may have in flight. A round trip takes
	// about 20 ms in an emulated guest, so yamux's own 256 KiB would hold the
	// port to a tenth of its speed.
	streamWindow = 4 << 20

	// stalledPort is how long the other side may leave the port unread. Long,
	// because a guest that is short of processor time is not a dead one.
	stalledPort = 2 * time.Minute
)

// MuxConfig returns the settings of yamux for both ends of the serial port.
func MuxConfig() *yamux.Config {
	config := yamux.DefaultConfig()
	config.MaxStreamWindowSize = streamWindow
	config.ConnectionWriteTimeout = stalledPort
	// Life is proved by the SSH connection inside, on every transport alike.
	config.EnableKeepAlive = false
	config.StreamOpenTimeout = 0
	config.LogOutput = io.Discard
	return config
}
