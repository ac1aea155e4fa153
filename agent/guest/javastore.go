//go:build linux

package guest

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// javaStore is where Debian's Java has whom it believes. It reads no PEM, and no variable names another list.
const javaStore = "/etc/ssl/certs/java/cacerts"

// The format of Java's KeyStore called JKS, version 2: a head, entries, and a digest. Numbers are big-endian.
const (
	javaMagic   = 0xfeedfeed
	javaVersion = 2
	javaHead    = 12 // bytes, with the number of entries at the end
	javaTrusted = 2  // the tag of an entry that is a certificate to believe
	javaAlias   = "sandbox-host-"

	javaPassword = "changeit" // which Java has for such files, and nobody changes
	javaSalt     = "Mighty Aphrodite"
)

// addToJavaStore does to Java's list what addToBundle does to others. One of another format or password is left alone.
func addToJavaStore(path string, certificates []byte) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(old) < javaHead+sha1.Size || binary.BigEndian.Uint64(old) != javaMagic<<32|javaVersion || !bytes.HasSuffix(old, javaDigest(old[:len(old)-sha1.Size])) {
		return nil
	}
	text, err := javaStoreWith(old[:len(old)-sha1.Size], certificates)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if bytes.Equal(text, old) {
		return nil
	}
	return replaceFile(path, string(text), 0o644)
}

// javaStoreWith is a store, of which old has no digest, with these certificates in place of those that it has had from us.
func javaStoreWith(old, certificates []byte) ([]byte, error) {
	var entries [][]byte
	rest := old[javaHead:]
	for range binary.BigEndian.Uint32(old[javaHead-4:]) {
		alias, size, ok := javaEntry(rest)
		if !ok {
			return nil, errors.New("it has what is no certificate")
		}
		if !strings.HasPrefix(alias, javaAlias) {
			entries = append(entries, rest[:size])
		}
		rest = rest[size:]
	}
	for block, rest := pem.Decode(certificates); block != nil; block, rest = pem.Decode(rest) {
		text := func(to []byte, s string) []byte {
			return append(binary.BigEndian.AppendUint16(to, uint16(len(s))), s...)
		}
		entry := text(binary.BigEndian.AppendUint32(nil, javaTrusted), fmt.Sprint(javaAlias, len(entries)))
		entry = text(binary.BigEndian.AppendUint64(entry, 0), "X.509") // the date is of no meaning
		entries = append(entries, append(binary.BigEndian.AppendUint32(entry, uint32(len(block.Bytes))), block.Bytes...))
	}
	store := binary.BigEndian.AppendUint32(bytes.Clone(old[:javaHead-4]), uint32(len(entries)))
	store = append(store, bytes.Join(entries, nil)...)
	return append(store, javaDigest(store)...), nil
}

// javaEntry reads the certificate at the beginning of what is left of a store.
func javaEntry(rest []byte) (alias string, size int, ok bool) {
	// take returns so many bytes that follow, or as many zeros and that there are none.
	ok = true
	take := func(n int) []byte {
		if ok = ok && n <= len(rest)-size; !ok {
			return make([]byte, 8)
		}
		size += n
		return rest[size-n : size]
	}
	tag := binary.BigEndian.Uint32(take(4))
	alias = string(take(int(binary.BigEndian.Uint16(take(2)))))
	take(8) // the date
	take(int(binary.BigEndian.Uint16(take(2))))
	take(int(binary.BigEndian.Uint32(take(4))))
	return alias, size, ok && tag == javaTrusted
}

// javaDigest is at the end of a store, to find damage.
func javaDigest(store []byte) []byte {
	digest := sha1.New()
	for _, c := range []byte(javaPassword) {
		digest.Write([]byte{0, c})
	}
	digest.Write([]byte(javaSalt))
	digest.Write(store)
	return digest.Sum(nil)
}
