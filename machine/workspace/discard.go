package workspace

import (
	"context"
	"fmt"
	"slices"
)

// Discard gives the guest what the host has, at the paths of the changes and below.
func (s *Share) Discard(ctx context.Context, changes []Change) error {
	whole := "" // the directory that was restored with all that is in it
	for _, c := range inOrder(changes) {
		if whole == "" || c.Path != whole && !within(c.Path, whole) {
			if err := s.Guest.Restore(ctx, c.Path); err != nil {
				return fmt.Errorf("discarding %s: %w", Name(c.Path), err)
			}
			if c.Kind != Modified {
				whole = c.Path
			}
		}
		if err := s.settleAsHost(c.Path); err != nil {
			return err
		}
	}
	return nil
}

// settleAsHost notes that the guest has what the host has.
func (s *Share) settleAsHost(name string) error {
	host, err := lstat(s.Host, name)
	if err != nil || host == nil || !host.side.Mode.IsRegular() {
		if host != nil {
			s.settle(name, host.side, [32]byte{}, host)
		}
		return err
	}
	f, host, err := open(s.Host, name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := sumOf(f)
	if err == nil {
		s.settle(name, host.side, sum, host)
	}
	return err
}

// inOrder sorts changes so that a directory comes before what is in it.
func inOrder(changes []Change) []Change {
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b Change) int { return comparePaths(a.Path, b.Path) })
	return changes
}
