package policy_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

// request reads "METHOD URL"; the path is taken as it is written.
func request(text string) policy.Request {
	method, address, _ := strings.Cut(text, " ")
	scheme, rest, _ := strings.Cut(address, "://")
	host, target := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, target = rest[:i], rest[i:]
	}
	r := policy.Request{Scheme: scheme, Host: host, Port: 443, Method: method}
	if scheme == "http" {
		r.Port = 80
	}
	if name, ok := strings.CutSuffix(host, ":8443"); ok {
		r.Host, r.Port = name, 8443
	}
	r.Path, r.Query, _ = strings.Cut(target, "?")
	return r
}

func TestRulesOpenTheRequestsThatTheyName(t *testing.T) {
	l := allowlist(t,
		"https://api.example.com/v1/**", "GET,HEAD https://api.example.com/status", "http://plain.example/a/*/b", "https://plain.example:8443/x",
		"GET https://read.example/**", "https://*.wild.example/f*.txt", "https://enc.example/a%20b/c", "https://both.example/only", "both.example", "https://root.example/",
	)
	for text, want := range map[string]string{
		"POST https://api.example.com/v1/messages":          "https://api.example.com/v1/**",
		"POST https://api.example.com/v1/messages?beta=../": "https://api.example.com/v1/**",
		"POST https://API.example.com./v1/messages":         "https://api.example.com/v1/**",
		"GET https://api.example.com/v1":                    "https://api.example.com/v1/**",
		"GET https://api.example.com/v1/":                   "https://api.example.com/v1/**",
		"GET https://api.example.com/%76%31/a":              "https://api.example.com/v1/**",
		"GET https://api.example.com/v1/a.b/c%20d/é":        policy.RuleBadPath,
		"GET https://api.example.com/v1/a.b/c%20d/%c3%a9":   "https://api.example.com/v1/**",
		"GET https://api.example.com/v1/.well-known":        "https://api.example.com/v1/**",
		"GET https://api.example.com/v10":                   policy.RuleNotAllowed,
		"GET https://api.example.com/V1/a":                  policy.RuleNotAllowed,
		"GET https://api.example.com/":                      policy.RuleNotAllowed,
		"GET http://api.example.com/v1/a":                   policy.RuleNotAllowed,
		"GET https://api.example.com:8443/v1/a":             policy.RuleNotAllowed,
		"GET https://x.api.example.com/v1/a":                policy.RuleNotAllowed,
		"GET https://api.example.com/status":                "GET,HEAD https://api.example.com/status",
		"HEAD https://api.example.com/status":               "GET,HEAD https://api.example.com/status",
		"POST https://api.example.com/status":               policy.RuleNotAllowed,
		"get https://api.example.com/status":                policy.RuleNotAllowed,
		"GET https://api.example.com/status/":               policy.RuleNotAllowed,
		"GET http://plain.example/a/x/b":                    "http://plain.example/a/*/b",
		"GET http://plain.example/a/x/y/b":                  policy.RuleNotAllowed,
		"GET http://plain.example/a//b":                     policy.RuleBadPath,
		"GET https://plain.example/x":                       policy.RuleNotAllowed,
		"GET https://plain.example:8443/x":                  "https://plain.example:8443/x",
		"GET https://read.example/@scope%2fname/../x;y//":   "GET https://read.example/**",
		"GET https://read.example":                          "GET https://read.example/**",
		"DELETE https://read.example/a":                     policy.RuleNotAllowed,
		"GET https://a.wild.example/foo.txt":                "https://*.wild.example/f*.txt",
		"GET https://a.wild.example/f.txt":                  "https://*.wild.example/f*.txt",
		"GET https://a.wild.example/f/.txt":                 policy.RuleNotAllowed,
		"GET https://wild.example/f.txt":                    policy.RuleNotAllowed,
		"GET https://enc.example/a%20b/c":                   "https://enc.example/a%20b/c",
		"GET https://both.example/other":                    "both.example",
		"GET https://root.example/":                         "https://root.example/",
		"GET https://root.example/x":                        policy.RuleNotAllowed,
		"GET https://root.example":                          policy.RuleBadPath,
		"OPTIONS https://root.example*":                     policy.RuleBadName,

		// What servers read differently.
		"GET https://api.example.com/v1/../admin":                      policy.RuleBadPath,
		"GET https://api.example.com/v1/%2e%2e/admin":                  policy.RuleBadPath,
		"GET https://api.example.com/v1/.%2E/admin":                    policy.RuleBadPath,
		"GET https://api.example.com/v1/./admin":                       policy.RuleBadPath,
		"GET https://api.example.com/v1/.../admin":                     policy.RuleBadPath,
		"GET https://api.example.com/v1/..%20/admin":                   policy.RuleBadPath,
		"GET https://api.example.com/v1//admin":                        policy.RuleBadPath,
		"GET https://api.example.com//v1/admin":                        policy.RuleBadPath,
		"GET https://api.example.com/v1/..%2fadmin":                    policy.RuleBadPath,
		"GET https://api.example.com/v1%2Fadmin":                       policy.RuleBadPath,
		"GET https://api.example.com/v1/..%5cadmin":                    policy.RuleBadPath,
		`GET https://api.example.com/v1/..\admin`:                      policy.RuleBadPath,
		"GET https://api.example.com/v1/..;/admin":                     policy.RuleBadPath,
		"GET https://api.example.com/v1/a;b=c":                         policy.RuleBadPath,
		"GET https://api.example.com/v1/a%3bb":                         policy.RuleBadPath,
		"GET https://api.example.com/v1/%252e%252e/x":                  policy.RuleBadPath,
		"GET https://api.example.com/v1/%00":                           policy.RuleBadPath,
		"GET https://api.example.com/v1/%0d%0a":                        policy.RuleBadPath,
		"GET https://api.example.com/v1/%3f":                           policy.RuleBadPath,
		"GET https://api.example.com/v1/%23":                           policy.RuleBadPath,
		"GET https://api.example.com/v1/%c0%ae%c0%ae/x":                policy.RuleBadPath,
		"GET https://api.example.com/v1/%ef%bc%8e/x":                   policy.RuleBadPath,
		"GET https://api.example.com/v1/%":                             policy.RuleBadPath,
		"GET https://api.example.com/v1/%2":                            policy.RuleBadPath,
		"GET https://api.example.com/v1/%u002e":                        policy.RuleBadPath,
		"GET https://api.example.com/v1/" + strings.Repeat("a", 9<<10): policy.RuleBadPath,
	} {
		if got := l.Request(request(text)); got.Rule != want || got.Allow != strings.Contains(want, ".example") {
			t.Errorf("%.80s: %+v, want %s", text, got, want)
		}
	}
	for _, c := range []struct {
		host string
		port uint16
		want policy.Verdict
	}{
		{"api.example.com", 443, policy.Verdict{Allow: true, Rule: "https://api.example.com/v1/**", Requests: true}},
		{"api.example.com", 80, policy.Verdict{Rule: policy.RuleNotAllowed}},
		{"plain.example", 80, policy.Verdict{Allow: true, Rule: "http://plain.example/a/*/b", Requests: true}},
		{"both.example", 443, policy.Verdict{Allow: true, Rule: "both.example"}},
	} {
		if got := l.Name(c.host, c.port, policy.TCP); got != c.want {
			t.Errorf("%s:%d: %+v, want %+v", c.host, c.port, got, c.want)
		}
	}
	if !l.Requests() || allowlist(t, "both.example").Requests() {
		t.Error("whether there are rules for requests is not known")
	}
}

func TestARuleForARepositoryOpensItsFetchAndPush(t *testing.T) {
	for _, rule := range []string{"git:https://git.example/owner/repo", "git:https://git.example/owner/repo.git"} {
		l := allowlist(t, rule)
		for text, allow := range map[string]bool{
			"GET https://git.example/owner/repo/info/refs?service=git-upload-pack":      true,
			"GET https://git.example/owner/repo.git/info/refs?service=git-receive-pack": true,
			"POST https://git.example/owner/repo/git-upload-pack":                       true,
			"POST https://git.example/owner/repo.git/git-receive-pack":                  true,
			"POST https://git.example/owner/repo/info/lfs/objects/batch":                true,
			"GET https://git.example/owner/repo/info/refs":                              false,
			"GET https://git.example/owner/repo/info/refs?service=git-upload-pack&x=1":  false,
			"POST https://git.example/owner/repo/info/refs?service=git-upload-pack":     false,
			"GET https://git.example/owner/repo/git-upload-pack":                        false,
			"POST https://git.example/owner/repo/git-upload-pack?x":                     false,
			"GET https://git.example/owner/repo":                                        false,
			"GET https://git.example/owner/repo/settings":                               false,
			"POST https://git.example/owner/other/git-receive-pack":                     false,
			"POST https://git.example/other/repo/git-receive-pack":                      false,
			"POST https://git.example/owner/repo2/git-receive-pack":                     false,
			"POST https://git.example/owner/repo/../other/git-receive-pack":             false,
			"POST https://git.example/owner/repo%2f..%2fother/git-receive-pack":         false,
			"POST https://git.example/owner/git-receive-pack":                           false,
			"POST http://git.example/owner/repo/git-receive-pack":                       false,
			"GET https://other.example/owner/repo/info/refs?service=git-upload-pack":    false,
			"GET https://git.example/owner/repo/objects/info/packs":                     false,
		} {
			if got := l.Request(request(text)); got.Allow != allow {
				t.Errorf("%s: %s: %+v", rule, text, got)
			}
		}
	}
}

func TestErrorsOfRulesForRequestsSayWhereAndHow(t *testing.T) {
	for text, want := range map[string]string{
		"https://example.com":                    "character 20: the path is missing; write it like https://api.example.com/**",
		"ftp://example.com/":                     "character 1: a rule for requests begins with https:// or http://",
		"https://example.com:*/":                 "character 9: it needs one port",
		"https://10.0.0.1/":                      "no certificate is made for an address",
		"https://127.0.0.1/":                     "names this machine itself",
		"https://[::1]/":                         "names this machine itself",
		"https://*/":                             "opens every name",
		"https://localhost/**":                   "names this machine itself",
		"https://user@example.com/":              "character 9: it names a user",
		"https://user:secret@example.com/":       "character 9: it names a user",
		"https://a..example/":                    "nothing between two dots",
		"https://example.com/a?b":                "character 22: what follows the path is not judged",
		"https://example.com/a#b":                "what follows the path",
		"https://example.com/../b":               "character 21: it leads up",
		"https://example.com/a//b":               "character 23: there is nothing between two slashes",
		"https://example.com/a%2fb":              `character 22: "%2f" is read differently`,
		"https://example.com/a/x**":              "** stands alone",
		"get https://example.com/":               `character 1: "get" is no method`,
		"GET, HEAD https://example.com/":         `character 5: "" is no method`,
		"GET,CONNECT https://example.com/":       `character 5: "CONNECT" is no method`,
		"GET  https://example.com/":              "begins with https://",
		"git:origin":                             "character 5: a remote's name stands for where it leads when a sandbox is made",
		"git:":                                   "character 5: it needs the repository's address",
		"git:https://localhost/o/r":              "names this machine itself",
		"git:http://github.com/o/r":              "by https",
		"git:git@github.com:o/r":                 "by https",
		"git:ssh://git@github.com/o/r":           "by https",
		"git:https://user:secret@github.com/o/r": "by https",
		"git:https://github.com":                 "the path is missing",
		"git:https://github.com/":                "the path is missing",
		"git:https://github.com/o/*":             "it names one repository",
		"git:https://*.github.com/o/r":           "it names one repository",
		"git:https://github.com/o/../r":          "it leads up",
	} {
		if _, err := policy.ParseRule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzRequest holds that no reading of a path that is open leads out of what a rule opens.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"/v1/a", "/v1/../b", "/v1/%2e%2e/b", "/v1/..%2fb", "/v1//b", "/v1/..;/b", `/v1/..\b`, "/v1/%252e%252e/b", "/v1/\u2025/b", "/%761/x", "/v1/a%3f/../b"} {
		f.Add(seed)
	}
	l := allowlist(f, "https://api.example.com/v1/**")
	f.Fuzz(func(t *testing.T, escaped string) {
		if !l.Request(policy.Request{Scheme: "https", Host: "api.example.com", Port: 443, Method: "GET", Path: escaped}).Allow {
			return
		}
		for read, times := escaped, 0; times < 3; times++ {
			for _, as := range []string{read, strings.ReplaceAll(read, `\`, "/")} {
				before, _, _ := strings.Cut(as, "?")
				var kept []string
				for part := range strings.SplitSeq(before, "/") {
					part, _, _ = strings.Cut(part, ";")
					kept = append(kept, strings.TrimRight(part, " "))
				}
				clean := path.Clean(strings.Join(kept, "/"))
				if decoded, err := url.PathUnescape(clean); err == nil && decoded != "/v1" && !strings.HasPrefix(decoded, "/v1/") {
					t.Errorf("%q is open, and %q to some", escaped, clean)
				}
			}
			decoded, err := url.PathUnescape(read)
			if err != nil {
				t.Fatalf("%q is open, and nobody can decode %q", escaped, read)
			}
			read = decoded
		}
	})
}
