package secret

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

const (
	digits = "0123456789"
	lowers = "abcdefghijklmnopqrstuvwxyz"
	uppers = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

	// leastRandom is how many random characters a placeholder has at least: of digits alone, they are 79 bits.
	leastRandom = 24

	// leastPart is how many characters there are at least on both sides of punctuation that is taken for the structure of a
	// value. What people make up themselves often has less, and says too much by where its punctuation is.
	leastPart = 6
)

// prefixes are those by which clients tell keys and tokens. They are public, and the same for all who have such a key.
var prefixes = []string{
	"sk-", "sk-ant-", "sk-ant-api03-", "sk-ant-admin01-", "sk-ant-oat01-", "sk-ant-ort01-", // Anthropic's, and sk- of many
	"sk-proj-", "sk-svcacct-", "sk-admin-", "sk-or-v1-", "sk-lf-", "pk-lf-", // OpenAI, OpenRouter, Langfuse
	"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", // GitHub
	"glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "gloas-", // GitLab
	"xoxb-", "xoxp-", "xoxa-", "xoxe-", "xapp-", "xoxe.xoxp-", // Slack
	"AIza", "ya29.", "GOCSPX-", // Google
	"AKIA", "ASIA", // AWS
	"hf_", "npm_", "pypi-", "dckr_pat_", "dckr_oat_", "crates.io-", "rubygems_", // Hugging Face and registries
	"gsk_", "xai-", "pplx-", "r8_", "nvapi-", "fw_", "csk-", "tgp_v1_", "jina_", "tvly-", "fc-", "lsv2_pt_", "lsv2_sk_", "pcsk_", // models and search
	"sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "SG.", "re_", "sq0atp-", "shpat_", // Stripe, SendGrid, Resend, Square, Shopify
	"dop_v1_", "tskey-auth-", "tskey-api-", "lin_api_", "ntn_", "figd_", "glsa_", "sntrys_", "sntryu_", "phc_", "phx_", "hvs.", "dapi", "sbp_", "ATATT3x", // services
}

// Placeholder returns what a guest is to have in place of the value: random, with the value's prefix if it has one that
// says what it is, such as ghp_, and otherwise of its length and kinds of characters, but never shorter than what nobody
// writes by chance.
//
// Of the rest of a value, a placeholder tells which kinds of characters there are, and not where. It has no characters
// that are written otherwise in a URL, in JSON or in a shell.
func Placeholder(v Value) string {
	text := v.Reveal()
	if isUUID(text) {
		return randomUUID(text)
	}
	if header, signature, ok := splitJWT(text); ok {
		return jwt(header, signature)
	}
	prefix := knownPrefix(text)
	separators := ".:"
	if prefix != "" {
		separators += "-_"
	}
	return prefix + similar(text[len(prefix):], separators)
}

// knownPrefix is the longest of prefixes that text has, or one that is made like them.
func knownPrefix(text string) string {
	longest := ""
	for _, p := range prefixes {
		if len(p) > len(longest) && strings.HasPrefix(text, p) {
			longest = p
		}
	}
	if longest != "" {
		return longest
	}
	// Two to six letters and a hyphen or underscore before what nobody could remember.
	n := len(text) - len(strings.TrimLeft(text, lowers))
	if n < 2 || n > 6 || n == len(text) || !strings.ContainsRune("-_", rune(text[n])) {
		return ""
	}
	rest := text[n+1:]
	random := len(rest) >= leastRandom && strings.Trim(rest, digits+lowers+uppers) == "" && strings.ContainsAny(rest, digits) && strings.Trim(rest, digits) != ""
	if !random {
		return ""
	}
	return text[:n+1]
}

// similar is random text of the kinds of characters that text has, in each of the parts between separators, if these are
// its structure.
func similar(text, separators string) string {
	// What is base64 still is, in its one canonical form.
	padding := text[len(strings.TrimRight(text, "=")):]
	if len(padding) > 2 || len(text) < leastRandom+len(padding)+1 || len(text)%4 != 0 || strings.ContainsAny(text, separators) {
		padding = ""
	}
	isSeparator := func(r rune) bool { return strings.ContainsRune(separators, r) }
	for part := range strings.FieldsFuncSeq(" "+text+" ", isSeparator) {
		if len(strings.TrimSpace(part)) < leastPart {
			isSeparator = func(rune) bool { return false }
		}
	}
	hex := isHex(text)
	var out strings.Builder
	written, last := 0, ""
	write := func(part string) {
		last = alphabet(part, hex)
		for range part {
			out.WriteByte(pick(last))
		}
		written += len(part)
	}
	begin := 0
	for i, r := range text {
		if isSeparator(r) {
			write(text[begin:i])
			out.WriteRune(r)
			begin = i + 1
		}
	}
	if padding != "" {
		write(text[begin : len(text)-len(padding)-1])
		return out.String() + "A" + padding
	}
	write(text[begin:])
	for ; written < leastRandom; written++ {
		out.WriteByte(pick(last))
	}
	return out.String()
}

// alphabet has the kinds of characters that a text has.
func alphabet(text string, hex bool) string {
	all := ""
	for _, kind := range []string{digits, lowers, uppers} {
		if strings.ContainsAny(text, kind) {
			if hex && kind != digits {
				kind = kind[:6]
			}
			all += kind
		}
	}
	if all == "" {
		return lowers
	}
	return all
}

// isHex tells whether a text is a number that is written with sixteen digits, and not by chance.
func isHex(text string) bool {
	const least = 16
	return len(text) >= least && strings.Trim(text, digits+"abcdef") == "" || len(text) >= least && strings.Trim(text, digits+"ABCDEF") == ""
}

func pick(alphabet string) byte {
	n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet)))) // never fails
	return alphabet[n.Int64()]
}

// uuidLayout is where a UUID has its hyphens (RFC 9562).
const uuidLayout = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

func isUUID(text string) bool {
	if len(text) != len(uuidLayout) {
		return false
	}
	for i := range len(text) {
		if (text[i] == '-') != (uuidLayout[i] == '-') {
			return false
		}
	}
	return strings.Trim(text, digits+"abcdefABCDEF-") == ""
}

// randomUUID is one of version 4, in letters as those of text.
func randomUUID(text string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	format := "%x-%x-%x-%x-%x"
	if strings.ContainsAny(text, "ABCDEF") {
		format = "%X-%X-%X-%X-%X"
	}
	return fmt.Sprintf(format, b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// splitJWT returns the first and the last part of a signed JSON Web Token (RFC 7515, 7.1).
func splitJWT(text string) (header, signature string, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return "", "", false
	}
	for _, part := range parts[:2] {
		data, err := base64.RawURLEncoding.DecodeString(part)
		var object map[string]json.RawMessage
		if err != nil || json.Unmarshal(data, &object) != nil || object == nil {
			return "", "", false
		}
	}
	return parts[0], parts[2], true
}

// jwt is a token that clients take for one that is valid for long. Of the value it has the header only, which says how
// such a token is signed: claims are about a person.
func jwt(header, signature string) string {
	const claims = `{"exp":4102444800}` // 2100-01-01
	n := max(len(signature), leastRandom+8)
	n -= n % 4 // so that each text of that length can be decoded
	var random strings.Builder
	for range n {
		random.WriteByte(pick(digits + lowers + uppers))
	}
	return header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + random.String()
}
