//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"unsafe"
)

// From the kernel's input-event-codes.h.
const (
	eventKey = 1
	keyPower = 116
	keyMax   = 0x2ff
)

// inputEvent is struct input_event of 64-bit machines.
type inputEvent struct {
	Seconds, Microseconds int64
	Type, Code            uint16
	Value                 int32
}

// watchPowerButtons powers the guest off when its virtual power button is
// pressed. In other systems logind does it, which is not worth its time here.
// The devices appear when the kernel has its modules for them, if at all.
func (s *service) watchPowerButtons(ctx context.Context) {
	seen := make(map[string]bool)
	err := watch(ctx, "/dev/input/event0", func() bool {
		// The pattern is a valid one, and nothing else can fail.
		found, _ := filepath.Glob("/dev/input/event*")
		for _, path := range found {
			if seen[path] {
				continue
			}
			if device, err := os.Open(path); err == nil {
				seen[path] = true
				go s.watchPowerButton(ctx, device)
			}
		}
		return false
	})
	if ctx.Err() == nil {
		s.logger.Warn("the power button is not watched", "err", err)
	}
}

// watchPowerButton waits for the power key of one input device, which it
// closes.
func (s *service) watchPowerButton(ctx context.Context, device *os.File) {
	defer device.Close()
	if !hasPowerKey(device) {
		return
	}
	stop := context.AfterFunc(ctx, func() { device.Close() })
	defer stop()
	for {
		var event inputEvent
		if err := binary.Read(io.Reader(device), binary.NativeEndian, &event); err != nil {
			return // the device is gone, or the guest shuts down
		}
		if event.Type == eventKey && event.Code == keyPower && event.Value == 1 {
			if err := s.PowerOff(ctx); err != nil {
				s.logger.Error("the power button has no effect", "err", err)
			}
		}
	}
}

// hasPowerKey asks an input device for the keys that it has.
func hasPowerKey(device *os.File) bool {
	var keys [keyMax/8 + 1]byte
	// EVIOCGBIT(EV_KEY, sizeof keys), put together as _IOC(_IOC_READ, 'E', …).
	request := uintptr(2<<30 | len(keys)<<16 | 'E'<<8 | (0x20 + eventKey))
	err := ioctl(device, request, unsafe.Pointer(&keys[0]))
	return err == nil && keys[keyPower/8]&(1<<(keyPower%8)) != 0
}
