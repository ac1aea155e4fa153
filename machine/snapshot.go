package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qemu"
)

// Needs says what a snapshot of a sandbox that runs by this plan needs.
func (p *Plan) Needs() (snapshot.Needs, error) {
	h := p.Hardware
	cpu, err := snapshot.Processor(p.VM.Accel)
	return snapshot.Needs{
		Image: h.Image, QEMU: fmt.Sprintf("%d.%d", p.QEMU.Version.Major, p.QEMU.Version.Minor),
		Machine: p.VM.Machine, Accel: p.VM.Accel, CPU: cpu, CPUs: h.CPUs, MemoryMiB: h.MemoryMiB, DiskMiB: h.DiskMiB, Caches: h.Caches,
		Transport: p.Transport, Network: string(h.Network), Shares: p.Shares,
	}, err
}

// Manifest returns the snapshot with that tag.
func (s *Sandbox) Snapshot(tag string) (snapshot.Manifest, error) {
	if err := layout.CheckTag(tag); err != nil {
		return snapshot.Manifest{}, err
	}
	snap, err := snapshot.Read(s.Files().Snapshot(tag))
	if errors.Is(err, os.ErrNotExist) {
		return snap, remedy.Add(api.Errorf(api.CodeNotExist, "the sandbox %s has no snapshot %s", s.Name, tag), remedy.ListSnapshots, s.Name)
	}
	return snap, err
}

// Snapshots lists the sandbox's snapshots, the oldest first. The error tells
// of those that cannot be read; the others are returned all the same.
func (s *Sandbox) Snapshots() ([]snapshot.Manifest, error) {
	entries, err := os.ReadDir(s.Files().Snapshots())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []snapshot.Manifest
	var errs []error
	for _, e := range entries {
		if layout.CheckTag(e.Name()) != nil {
			continue // half made or half removed
		}
		snap, err := s.Snapshot(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, snap)
	}
	slices.SortFunc(all, func(a, b snapshot.Manifest) int { return a.Created.Compare(b.Created) })
	return all, errors.Join(errs...)
}

// RemoveSnapshot deletes a snapshot. No other depends on it.
func (s *Sandbox) RemoveSnapshot(tag string) error {
	if err := layout.CheckTag(tag); err != nil {
		return err
	}
	doomed := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.RemovedPrefix, tag))
	err := os.Rename(s.Files().Snapshot(tag), doomed)
	if errors.Is(err, os.ErrNotExist) {
		return remedy.Add(api.Errorf(api.CodeNotExist, "the sandbox %s has no snapshot %s", s.Name, tag), remedy.ListSnapshots, s.Name)
	}
	if err != nil {
		return fmt.Errorf("removing the snapshot %s: %w", tag, err)
	}
	return tree.Remove(doomed)
}

// VerifySnapshot reads the whole snapshot and tells whether it is what was
// saved, and whether its disk can be opened.
func (s *Sandbox) VerifySnapshot(ctx context.Context, snap snapshot.Manifest) error {
	for name, want := range snap.Files() {
		path := filepath.Join(s.Files().Snapshot(snap.Tag), name)
		got, err := snapshot.Checksum(ctx, path)
		if err != nil {
			return fmt.Errorf("verifying the snapshot %s: %w", snap.Tag, err)
		}
		if got != want.Checksum {
			return remedy.Add(fmt.Errorf("the snapshot %s is damaged: %s is not what was saved", snap.Tag, path), remedy.RemoveSnapshot, s.Name, snap.Tag)
		}
	}
	for name := range snap.Disks() {
		if _, _, err := disk.Layers(filepath.Join(s.Files().Snapshot(snap.Tag), name)).Check(); err != nil {
			return s.ExplainSnapshot(snap.Tag, err)
		}
	}
	return nil
}

// ExplainSnapshot says what to do about a snapshot whose disk is not opened.
func (s *Sandbox) ExplainSnapshot(tag string, err error) error {
	if _, ok := errors.AsType[*qemu.LayerError](err); ok {
		return remedy.Add(fmt.Errorf("the snapshot %s cannot be used: %w", tag, err), remedy.RemoveSnapshot, s.Name, tag)
	}
	return err
}
