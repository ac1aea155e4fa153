// Package gpgagent lends some keys of a user's gpg-agent to somebody whom the user does not trust.
//
// Who borrows speaks Assuan, the protocol of GnuPG's programs, as far as gpg does so to sign: with it, the borrower names one
// of the keys and a digest. All is answered here but the signature, for which the user's agent is asked over a connection of
// its own, in words of ours: nothing of the borrower's reaches it but the digest, and none of its answers but the signature
// reaches the borrower. The agent's extra socket is used, which by itself refuses what a machine far away may not do.
package gpgagent
