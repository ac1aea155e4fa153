package machine

import (
	"crypto/rand"
	"fmt"
	"math/big"
)

// randomName makes names such as brave-otter until one is not taken.
func randomName(taken func(string) bool) string {
	first := []string{"able", "bold", "brave", "calm", "clever", "eager", "fair", "gentle", "happy", "keen", "kind", "lively", "lucky", "merry", "neat", "noble", "quick", "quiet", "sharp", "shiny", "smart", "swift", "warm", "wise"}
	second := []string{"badger", "beaver", "crane", "dolphin", "eagle", "falcon", "ferret", "finch", "fox", "gecko", "heron", "ibex", "lark", "lynx", "marten", "newt", "otter", "owl", "panda", "raven", "robin", "seal", "stork", "tern"}
	for tries := 0; ; tries++ {
		name := pick(first) + "-" + pick(second)
		if tries > len(first) {
			name = fmt.Sprintf("%s-%d", name, tries)
		}
		if !taken(name) {
			return name
		}
	}
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux (getrandom(2))
	}
	return words[n.Int64()]
}
