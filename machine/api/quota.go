package api

import "context"

// Quota is how much a directory that the guest writes to may hold.
type Quota struct {
	Source     string `json:"source"` // on the host
	Target     string `json:"target"` // in the guest
	UsedBytes  int64  `json:"usedBytes"`
	LimitBytes int64  `json:"limitBytes"`
}

// Quotas are those of a sandbox.
type Quotas struct {
	Quotas []Quota `json:"quotas,omitempty"`
}

const quotas call[nothing, Quotas] = "quotas"

// Quotas asks what is left of the quotas of shares and home. What the host removes is known when there is no room left.
func (c *Client) Quotas(ctx context.Context) (Quotas, error) {
	return quotas.ask(ctx, c, nothing{})
}
