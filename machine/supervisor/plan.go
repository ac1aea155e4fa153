package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// randomCID picks a context id from the range that vsock(7) leaves to guests.
func randomCID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:])                                // never fails (getrandom(2))
	return 3 + binary.LittleEndian.Uint32(b[:])%(1<<31-3) // 0, 1, 2 are reserved; stay below 2^31
}

// exitedWithin is done when done is, or after d.
func exitedWithin(done <-chan struct{}, d time.Duration) <-chan struct{} {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		defer cancel()
		select {
		case <-done:
		case <-ctx.Done():
		}
	}()
	return ctx.Done()
}
