// Package secret is what a guest has in place of a secret of its user's, and how the secret takes that place on its way to
// the hosts that it is for: in the guest there is a placeholder, which is of the same shape and worth nothing, and a
// request to one of those hosts has the secret in it when it leaves the host.
//
// Secrets are in the memory of the process that reads the guest's requests, and on the way there in files without a name
// in memory. They are never text of JSON, of a log or of an error: a [Value] has no such form.
package secret
