// Package policy decides what a guest may reach.
//
// It computes and does nothing else: a [Policy] is asked about the address that is about to be dialled, after names
// were resolved, so that neither a name nor an unusual way to write an address leads around it. An [Allowlist] narrows
// that to the names and addresses that a user has written down as a [Rule] each.
package policy
