package qmp_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

func TestQEMUResizes(t *testing.T) {
	ctx := within(t, time.Minute)
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	client, _ := startMachine(t, "-M", "q35", "-accel", "tcg", "-m", "64M", "-S",
		"-blockdev", "file,node-name=file9,filename="+image, "-blockdev", "raw,node-name=top9,file=file9",
		"-device", "virtio-blk-pci,id=disk,drive=top9", "-device", "virtio-balloon-pci,id=balloon0")
	if err := client.Handshake(ctx); err != nil {
		t.Fatal(err)
	}
	if err := client.BlockResize(ctx, "disk", 3<<20); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(image); err != nil || info.Size() != 3<<20 {
		t.Errorf("the drive was not resized: %v, %v", info, err)
	}
	if err := client.BlockResize(ctx, "dis", 4<<20); err == nil {
		t.Error("a drive that is not there was resized")
	}
	// No guest runs that could give memory up, and none needs to for all of it.
	for _, bytes := range []int64{32 << 20, 1 << 40} {
		if err := client.Balloon(ctx, bytes); err != nil {
			t.Errorf("asking for %d bytes: %v", bytes, err)
		}
	}
	if bytes, err := client.QueryBalloon(ctx); err != nil || bytes != 64<<20 {
		t.Errorf("the guest has %d bytes, %v; want 64 MiB", bytes, err)
	}
	if err := client.Balloon(ctx, 0); err == nil {
		t.Error("a guest without memory was accepted")
	}
}

func TestResizeOfMachineWithoutBalloonIsAnError(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	for name, ask := range map[string]func(context.Context) error{
		"balloon":       func(ctx context.Context) error { return client.Balloon(ctx, 1<<20) },
		"query-balloon": func(ctx context.Context) error { _, err := client.QueryBalloon(ctx); return err },
	} {
		if err := ask(ctx); !qmp.IsClass(err, qmp.ClassDeviceNotActive) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
