// Package aws signs requests to AWS anew that a guest has signed with what stands for a key, and gets the keys of the user's
// profiles. The signatures are of version 4 (SigV4): AWS's Signature Version 4 for API requests, in the IAM User Guide.
package aws
