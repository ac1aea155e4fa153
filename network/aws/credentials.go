package aws

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"math/big"
	"time"
)

// Credentials are a key of AWS's, in the form that credential_process prints, with the region of its profile.
type Credentials struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string    `json:",omitempty"`
	Expiration      time.Time `json:",omitzero"` // zero: never
	Region          string    `json:",omitempty"`
}

// Parse reads what String returns. Its errors do not repeat it.
func Parse(text string) (c Credentials, err error) {
	if json.Unmarshal([]byte(text), &c) != nil || c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return Credentials{}, errors.New("it is no key of AWS")
	}
	return c, nil
}

// String returns the credentials, with what is secret, as text of ASCII without a line's end.
func (c Credentials) String() string {
	text, _ := json.Marshal(c) // of strings and a time: never fails
	return string(text)
}

// soon is how long before their end credentials are got again.
const soon = 5 * time.Minute

// Fresh tells whether the credentials are good for some more minutes.
func (c Credentials) Fresh(now time.Time) bool {
	return c.Expiration.IsZero() || now.Before(c.Expiration.Add(-soon))
}

// The variables by which programs know a key and a region. Which of the last two it is depends on the program.
const (
	VariableKeyID         = "AWS_ACCESS_KEY_ID"
	VariableKey           = "AWS_SECRET_ACCESS_KEY"
	VariableRegion        = "AWS_REGION"
	VariableDefaultRegion = "AWS_DEFAULT_REGION"
)

// Variables are all that a program needs, and VariableToken's, which is no part of a placeholder.
func Variables() []string {
	return []string{VariableKeyID, VariableKey, "AWS_SESSION_TOKEN", VariableRegion, VariableDefaultRegion}
}

// Placeholder returns the number of a key, and a key, as those that last have them: what a session's key needs beside them
// comes with the signature.
func Placeholder() (id, key string) {
	const base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	return "AKIA" + random(base32, 16), random(base32+"abcdefghijklmnopqrstuvwxyz01", 40)
}

func random(alphabet string, n int) string {
	text := make([]byte, n)
	for i := range text {
		at, _ := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet)))) // never fails
		text[i] = alphabet[at.Int64()]
	}
	return string(text)
}
