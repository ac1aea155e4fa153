package secret

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestPlaceholdersLookLikeWhatTheyStandFor(t *testing.T) {
	many := func(text string, n int) string { return strings.Repeat(text, n)[:n] }
	for text, want := range map[string]string{
		"sk-ant-api03-" + many("aZ0_-", 95):                    `sk-ant-api03-[a-zA-Z0-9]{95}`,
		"sk-ant-oat01-" + many("aZ0", 40):                      `sk-ant-oat01-[a-zA-Z0-9]{40}`,
		"sk-proj-" + many("aZ0", 48):                           `sk-proj-[a-zA-Z0-9]{48}`,
		"sk-or-v1-" + many("0af", 64):                          `sk-or-v1-[a-f0-9]{64}`,
		"sk-" + many("aZ0", 48):                                `sk-[a-zA-Z0-9]{48}`,
		"ghp_" + many("aZ0", 36):                               `ghp_[a-zA-Z0-9]{36}`,
		"github_pat_" + many("A1", 22) + "_" + many("aZ0", 59): `github_pat_[A-Z0-9]{22}_[a-zA-Z0-9]{59}`,
		"glpat-" + many("aZ0-", 20):                            `glpat-[a-zA-Z0-9]{24}`,
		"xoxb-123456789012-123456789012-" + many("aZ0", 24):    `xoxb-\d{12}-\d{12}-[a-zA-Z0-9]{24}`,
		"AIza" + many("aZ0_", 35):                              `AIza[a-zA-Z0-9]{35}`,
		"AKIA" + many("A2", 16):                                `AKIA[A-Z0-9]{24}`,
		"SG." + many("aZ0", 22) + "." + many("aZ0", 43):        `SG\.[a-zA-Z0-9]{22}\.[a-zA-Z0-9]{43}`,
		"abc_" + many("aZ0", 32):                               `abc_[a-zA-Z0-9]{32}`, // of a service that is not known
		many("a0f", 32):                                        `[a-f0-9]{32}`,
		many("A0F", 64):                                        `[A-F0-9]{64}`,
		"123456789:" + many("aZ0", 35):                         `\d{9}:[a-zA-Z0-9]{35}`,
		many("aZ0+/", 86) + "==":                               `[a-zA-Z0-9]{85}A==`,
		"123e4567-e89b-12d3-a456-426614174000":                 `[a-f0-9]{8}-[a-f0-9]{4}-4[a-f0-9]{3}-[89ab][a-f0-9]{3}-[a-f0-9]{12}`,
		"123E4567-E89B-12D3-A456-426614174000":                 `[A-F0-9]{8}-[A-F0-9]{4}-4[A-F0-9]{3}-[89AB][A-F0-9]{3}-[A-F0-9]{12}`,
		// What people make up has no structure that a guest needs to know.
		"hunter2":                      `[a-z0-9]{24}`,
		"1234":                         `\d{24}`,
		"Pass.word":                    `[a-zA-Z]{24}`,
		"correct-horse-battery-staple": `[a-z]{28}`,
		"----":                         `[a-z]{24}`,
		"user:hunter2":                 `[a-z0-9]{24}`,
		"somebody:hunter2":             `[a-z]{8}:[a-z0-9]{16}`,
		"Bearer " + many("aZ0", 40):    `[a-zA-Z0-9]{47}`,
		`{"key": "` + many("a", 30):    `[a-z]{6}:[a-z]{32}`,
		many("a", maxValue):            `[a-z]{16384}`,
	} {
		v := value(t, text)
		got := Placeholder(v)
		pattern := want
		if len(text) == maxValue { // more than an expression may repeat
			pattern = "[a-z]+"
		}
		if !regexp.MustCompile("^"+pattern+"$").MatchString(got) || len(text) == maxValue && len(got) != maxValue {
			t.Errorf("%.60s has the placeholder %.60s, want %s", text, got, want)
		}
		if again := Placeholder(v); again == got {
			t.Errorf("%.60s has the same placeholder twice", text)
		}
		if _, err := NewValue(got); err != nil || strings.Contains(got, text) {
			t.Errorf("%.60s: the placeholder %.60s is not usable: %v", text, got, err)
		}
	}
}

// TestAPlaceholderHasNothingOfItsValue compares many with what is random in the value: at no place is one of the value's
// characters there more often than by chance, and the value's own kind at a place is not kept.
func TestAPlaceholderHasNothingOfItsValue(t *testing.T) {
	const text, rounds = "aaaaaaaaaaaa000000000000AAAAAAAAAAAA", 3000 // one in 62 is 48
	v := value(t, text)
	same := make([]int, len(text))
	for range rounds {
		p := Placeholder(v)
		for i := range same {
			if p[i] == text[i] {
				same[i]++
			}
		}
	}
	for i, n := range same {
		if n == 0 || n > 200 { // by chance once in 10^20 rounds or less
			t.Errorf("at %d, %d of %d are as in the value", i, n, rounds)
		}
	}
}

func TestAJWTStaysOneWithoutItsClaims(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	header := encode([]byte(`{"alg":"RS256","typ":"JWT","kid":"k1"}`))
	claims := encode([]byte(`{"sub":"somebody@example.com","exp":1700000000}`))
	signature := strings.Repeat("Sig0-_", 57)
	got := strings.Split(Placeholder(value(t, header+"."+claims+"."+signature)), ".")
	if len(got) != 3 || got[0] != header {
		t.Fatalf("it is %q", got)
	}
	data, err := base64.RawURLEncoding.DecodeString(got[1])
	var decoded map[string]any
	if err != nil || json.Unmarshal(data, &decoded) != nil || len(decoded) != 1 {
		t.Errorf("the claims are %s, %v", data, err)
	}
	if exp, _ := decoded["exp"].(float64); time.Unix(int64(exp), 0).Before(time.Now().AddDate(10, 0, 0)) {
		t.Errorf("it expires at %v", decoded["exp"])
	}
	if sig, err := base64.RawURLEncoding.DecodeString(got[2]); err != nil || len(sig) < 200 || strings.Contains(got[2], "Sig0") {
		t.Errorf("the signature is %s, %v", got[2], err)
	}
	// What only looks like one has no claims.
	for _, text := range []string{header + "." + claims, header + ".e30.x.y", "a." + claims + ".b", header + "." + encode([]byte("null")) + ".s"} {
		if p := Placeholder(value(t, text)); strings.HasPrefix(p, header) {
			t.Errorf("%s has the placeholder %s", text, p)
		}
	}
}

func FuzzPlaceholder(f *testing.F) {
	for _, text := range []string{"ghp_x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "x:=", "123456.abcdef==", "sk-ant-", "====", "abcdef-abcdef"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := NewValue(text)
		if err != nil {
			return
		}
		p := Placeholder(v)
		if len(p) < leastRandom || p == text {
			t.Errorf("%q has the placeholder %q", text, p)
		}
		if header, _, ok := splitJWT(text); !ok && strings.Trim(p, digits+lowers+uppers+".:-_=") != "" {
			t.Errorf("%q has the placeholder %q", text, p)
		} else if ok && !strings.HasPrefix(p, header) {
			t.Errorf("%q has the placeholder %q", text, p)
		}
	})
}
