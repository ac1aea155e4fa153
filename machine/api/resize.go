package api

import "context"

// Sizes are of a sandbox, in MiB. In a request, 0 leaves one as it is.
type Sizes struct {
	MemoryMiB int `json:"memoryMiB"`
	DiskMiB   int `json:"diskMiB"`
}

// Memory is what a guest has at the moment.
type Memory struct {
	Bytes int64 `json:"bytes"`
}

const (
	resize call[Sizes, Sizes]    = "resize"
	memory call[nothing, Memory] = "memory"
)

// Resize gives the running guest as much memory, and lets its disk grow. It returns
// the sizes that it has then.
func (c *Client) Resize(ctx context.Context, want Sizes) (Sizes, error) {
	return resize.ask(ctx, c, want)
}

// Memory asks how much memory the guest has.
func (c *Client) Memory(ctx context.Context) (Memory, error) {
	return memory.ask(ctx, c, nothing{})
}
