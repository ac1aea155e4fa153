package machine

import "context"

// balloonBytes is what Resize has taken of the running guest's memory, or 0
// where nobody can tell, as under a supervisor from before there were balloons.
func (s *Sandbox) balloonBytes(ctx context.Context) int64 {
	ctx, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	c, err := s.Config()
	if err != nil {
		return 0
	}
	now, err := s.api().Memory(ctx)
	if err != nil {
		return 0
	}
	return max(int64(c.MemoryMiB)<<20-now.Bytes, 0)
}
