package machine

import "context"

// Pause lets the sandbox stand still: its processors stop, its memory stays.
func (s *Sandbox) Pause(ctx context.Context) error {
	if err := s.checkStarted(); err != nil {
		return err
	}
	return s.api().Pause(ctx)
}

// Resume lets a paused sandbox go on, with the right time.
func (s *Sandbox) Resume(ctx context.Context) error {
	if err := s.checkStarted(); err != nil {
		return err
	}
	return s.api().Resume(ctx)
}

// checkStarted returns nil if the sandbox has a guest that runs or is paused.
func (s *Sandbox) checkStarted() error {
	if st := s.State(); st.Status != StatusRunning && st.Status != StatusPaused {
		return s.NotRunning(st)
	}
	return nil
}
