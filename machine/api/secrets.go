package api

import "context"

// SecretName names a secret of the guest's.
type SecretName struct {
	Name string `json:"name"`
}

const revokeSecret call[SecretName, nothing] = "revoke"

// RevokeSecret takes a secret away from the guest, at once and for good.
func (c *Client) RevokeSecret(ctx context.Context, s SecretName) error {
	_, err := revokeSecret.ask(ctx, c, s)
	return err
}
