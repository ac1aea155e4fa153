package secret

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Spec{
		"K@a.example": {Name: "K", Hosts: []Host{{"a.example", 443}}},
		"GITHUB_TOKEN=env:GH@API.GitHub.com.,github.com:443,b.example:8443": {
			Name: "GITHUB_TOKEN", Source: Source{Kind: FromEnvironment, Of: "GH"},
			Hosts: []Host{{"api.github.com", 443}, {"github.com", 443}, {"b.example", 8443}},
		},
		"_k1=file:~/.config/a@b,c@a.example,header=x-api-key,query,body,header=AUTHORIZATION": {
			Name: "_k1", Source: Source{Kind: FromFile, Of: "~/.config/a@b,c"}, Hosts: []Host{{"a.example", 443}},
			Headers: []string{"X-Api-Key", "Authorization"}, Query: true, Body: true,
		},
		"K=command:op read op://v/me@x.example/k, or=that@xn--bcher-kva.example": {
			Name: "K", Source: Source{Kind: FromCommand, Of: "op read op://v/me@x.example/k, or=that"}, Hosts: []Host{{"xn--bcher-kva.example", 443}},
		},
		"K=file:/k@query,a.example": {Name: "K", Source: Source{Kind: FromFile, Of: "/k"}, Hosts: []Host{{"a.example", 443}}, Query: true},
		"K@a.example/o/r,b.example,A.example:443/o/%72.git,b.example:1/%40x/a%2cb": {
			Name: "K", Hosts: []Host{{"a.example", 443}, {"b.example", 443}, {"b.example", 1}},
			Paths: map[Host][]string{{"a.example", 443}: {"/o/r", "/o/r.git"}, {"b.example", 1}: {"/%40x/a%2Cb"}},
		},
		"aws:a b":                      {Name: "AWS_ACCESS_KEY_ID", Source: Source{Kind: FromAWS, Of: "a b"}, Hosts: awsDomains},
		"aws:me@corp@*.amazonaws.com":  {Name: "AWS_ACCESS_KEY_ID", Source: Source{Kind: FromAWS, Of: "me@corp"}, Hosts: awsDomains[:1]},
		"aws:r2@S3.example:9000,b.c/d": {Name: "AWS_ACCESS_KEY_ID", Source: Source{Kind: FromAWS, Of: "r2"}, Hosts: []Host{{"s3.example", 9000}, {"b.c", 443}}, Paths: map[Host][]string{{"b.c", 443}: {"/d"}}},
		"K=store:other@a.example":      {Name: "K", Source: Source{Kind: FromStore, Of: "other"}, Hosts: []Host{{"a.example", 443}}},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := Parse(got.String()); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%s is written as %s, which is %+v, %v", text, got, again, err)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "has no @",
		"K":                           "has no @",
		"aws:":                        "has a name of your ~/.aws/config",
		"aws: a":                      "without spaces before or after it",
		"aws:a@*.example.com":         "stands for several",
		"aws:a@a.example,query":       "is neither",
		"aws:a@a.b,header=X":          "is neither a host nor",
		"K=aws:work@a.b":              "never the secret itself",
		"K=env:A":                     "has no @",
		"@a.example":                  "begins with the name of a variable",
		"1K@a.example":                "no digit first",
		"a-b@a.example":               "letters, digits and underscores",
		"K@a.example\n":               "is one line",
		"K=file:/\xff@a.b":            "of UTF-8",
		"PATH@a.example":              "a variable that guests need",
		"LD_PRELOAD@a.b":              "a variable that guests need",
		"SSL_CERT_FILE@a.b":           "a variable that guests need",
		"https_proxy@a.b":             "a variable that guests need",
		"K=@a.example":                "never the secret itself",
		"K=s3cret@a.example":          "never the secret itself",
		"K=env:@a.example":            "after env: there is a name",
		"K=env:$A@a.example":          "after env: there is a name",
		"K=store:a/b@a.b":             "after store: there is a name",
		"K=file:k@a.example":          "an absolute path, or one that begins with ~/",
		"K=file:~/@a.example":         "an absolute path, or one that begins with ~/",
		"K=file:~x/k@a.b":             "an absolute path, or one that begins with ~/",
		"K=command: @a.b":             "a command that prints the secret",
		"K@":                          "nothing before, between or after the commas",
		"K@a.example,":                "nothing before, between or after the commas",
		"K@query":                     "has no host",
		"K@a.b,query,query":           "query is there twice",
		"K@a.b,body,body":             "body is there twice",
		"K@a.b,A.B:443":               "a.b is there twice",
		"K@a.b/x,a.b/%78":             "a.b/x is there twice",
		"K@a.b,a.b/x":                 "a.b is there as a whole, and with a path",
		"K@a.b/x,a.b":                 "a.b is there as a whole, and with a path",
		"K@a.b/":                      "ends with a slash",
		"K@a.b/x/":                    "ends with a slash",
		"K@a.b//x":                    "nothing between two slashes",
		"K@a.b/x/../y":                "leads up",
		"K@a.b/x%2fy":                 "read differently by different servers",
		"K@a.b/x*":                    "named one by one",
		"K@a.b/x?y":                   "without https:// and a query",
		"K@/x":                        "a host, whose name has a dot in it",
		"K@localhost":                 "a host, whose name has a dot in it",
		"K@*.example.com":             "stands for several, and",
		"K@https://a.example":         "without https:// and a query",
		"K@192.0.2.1":                 "is an address",
		"K@[2001:db8::1]:443":         "is an address",
		"K@a.0x7f":                    "begins with a letter",
		"K@2130706433.1":              "begins with a letter",
		"K@a..example":                "1 to 63 characters",
		"K@-a.example":                "no hyphen first or last",
		"K@a_b.example":               "letters of ASCII, digits and hyphens",
		"K@b\u00fccher.de":            "begins with xn--",
		"K@\u212a.example":            "letters of ASCII", // the sign for kelvin, whose small form is a k
		"K@a.example:0":               "no port",
		"K@a.example:0443":            "no port",
		"K@a.example:+1":              "no port",
		"K@a.example:":                "no port",
		"K@a.example:65536":           "no port",
		"K=file:/k@a.b,ttl=1":         "the ttl \"1\" is no time",
		"K=file:/k@a.b,ttl=59s":       "the ttl \"59s\" is no time",
		"K=file:/k@a.b,ttl=1h,ttl=1h": "the ttl is there twice",
		"K=env:A@a.b,ttl=1h":          "only what a command prints or a file holds can be got again",
		"K@a.b,headers=X":             "neither a host nor header=NAME",
		"K@a.b,header=":               "not the name of a header",
		"K@a.b,header=a b":            "not the name of a header",
		"K@a.b,header=X:":             "not the name of a header",
		"K@a.b,header=\u00e9":         "not the name of a header",
		"K@a.b,header=host":           "the header Host is not one for secrets",
		"K@a.b,header=cookie":         "the header Cookie is not one for secrets",
		"K@a.b,header=te":             "the header Te is not one for secrets",
		"K@a.b,header=sec-x":          "the header Sec-X is not one for secrets",
		"K@a.b,header=x-k,header=X-K": "the header X-K is there twice",
		"K@" + strings.Repeat("a", 64) + ".example":  "1 to 63 characters",
		"K@" + strings.Repeat("a.", 127) + "example": "at most 253 characters",
		strings.Repeat("K", 129) + "@a.example":      "1 to 128 letters",
	} {
		s, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "; write it like ") {
			t.Errorf("%q: %+v, %v; want an error with %q", text, s, err, want)
		}
	}
}

// TestErrorsDoNotRepeatWhatMayBeASecret is for those who write the secret where its name or its source belongs.
func TestErrorsDoNotRepeatWhatMayBeASecret(t *testing.T) {
	const value = "s3cr-3t"
	for _, text := range []string{value, value + "@a.example", "K=" + value, "K=" + value + "@a.example", "K=" + value + "@localhost", "K=env:" + value + "@a.b", "K=file:" + value + "@a.b", value + "=env:K@a.b"} {
		if _, err := Parse(text); err == nil || strings.Contains(err.Error(), value) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"K@a.example", "K=env:A@a.example:8443,b.example", "K=file:~/k@x,y@a.example,header=x-k,query,body", "K=command:a=b@c, d@e.f", "K=command:x@e.f,ttl=90m", "K=store:A@A.B.:443",
		"K@a.b/o/r,a.b/%2c,c.d", "K@a.b,header=", "K@[::1]", "K=@", "\xff@a.b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%q is written as %q, which is %+v, %v", text, s, again, err)
		}
		for _, h := range s.Hosts {
			if h.Port == 0 || h.Name != strings.ToLower(h.Name) || !strings.Contains(h.Name, ".") || strings.ContainsAny(h.Name, "*:/@[] ") {
				t.Errorf("%q is for the host %+v", text, h)
			}
		}
	})
}

// TestWhatTheAgentSetsIsReserved reads which variables say whom programs in the guest believe.
func TestWhatTheAgentSetsIsReserved(t *testing.T) {
	source, err := os.ReadFile("../../agent/guest/certificates.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"([A-Z][A-Z_]+)[="]`).FindAllStringSubmatch(string(source), -1)
	for _, name := range names {
		if !reserved(name[1]) {
			t.Errorf("%s is not reserved", name[1])
		}
	}
	if len(names) < 10 {
		t.Errorf("only %d were found: the code is not read as it is written", len(names))
	}
}
