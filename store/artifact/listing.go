package artifact

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A folder's digest is the hash of its listing (see Digest), which knows the hash
// of each file. The listing is kept under that hash, so that whoever wants the
// files' hashes need not read them all again. It proves itself, and one that is
// lost is only work to be done anew.
const (
	listingsDir = ".listings"
	// maxListing is that of half a million files; larger ones are not kept.
	maxListing = 64 << 20
)

// listing gathers lines up to maxListing.
type listing struct {
	text bytes.Buffer
	long bool
}

// Write implements io.Writer.
func (l *listing) Write(p []byte) (int, error) {
	if l.long = l.long || l.text.Len()+len(p) > maxListing; !l.long {
		l.text.Write(p)
	}
	return len(p), nil
}

// keepListing puts a listing away, as far as it can.
func (r *Repository) keepListing(name string, l *listing) {
	if l.long || makeFolders(r.root, []string{listingsDir}, 0o700) != nil {
		return
	}
	dir, err := descend(r.root, []string{listingsDir})
	if err != nil {
		return
	}
	defer func() { _ = dir.close() }() // what is lost is made anew
	if _, err := statAt(dir, name); err == nil {
		return
	}
	// Whoever writes the same at once has a name of its own.
	var random [8]byte
	if _, err := unix.Getrandom(random[:], 0); err != nil {
		return
	}
	temporary := name + "-" + hex.EncodeToString(random[:])
	out, err := openAt2(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	f := out.file(temporary)
	_, err = f.Write(l.text.Bytes())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = retry(func() error { return unix.Renameat(int(dir), temporary, int(dir), name) })
	}
	if err != nil {
		_ = unix.Unlinkat(int(dir), temporary, 0)
	}
}

// FileHashes are the SHA-256, in hexadecimal, of the files of a folder artifact
// with this digest, by path; nil where nobody knows them without reading.
func (r *Repository) FileHashes(digest string) map[string]string {
	name, is := strings.CutPrefix(digest, DigestPrefix)
	if !is || checkSegment(name) != nil {
		return nil
	}
	dir, err := descend(r.root, []string{listingsDir})
	if err != nil {
		return nil
	}
	defer func() { _ = dir.close() }() // it was only read
	found, err := openAt(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return nil
	}
	f := found.file(name)
	text, err := io.ReadAll(io.LimitReader(f, maxListing+1))
	_ = f.Close() // it was only read
	if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != name {
		return nil
	}
	hashes := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxListing)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), " ", 4)
		if len(parts) != 4 || parts[0] != "f" {
			continue
		}
		path, err := strconv.Unquote(parts[3])
		if err != nil {
			return nil
		}
		hashes[path] = parts[1]
	}
	return hashes
}
