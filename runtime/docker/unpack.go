package docker

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// maxVolumeEntries and maxVolumeBytes bound what is copied out of an image:
	// more than any model has, less than fills a file system's tables or a node's
	// disk unnoticed.
	maxVolumeEntries = 1_000_000
	maxVolumeBytes   = 2 << 40
)

// unpackLimits are the most entries and bytes of one archive.
type unpackLimits struct {
	entries int
	bytes   int64
}

// unpack writes an archive of a stranger's into root, which is empty: files,
// folders, and links that stay inside. Owners, times and special bits are not
// kept, and everybody may read what was written. Any other entry, a name or a
// link that leads out, a name that comes twice, and more than the limits allow
// are errors; what was written until then stays.
func unpack(root *os.Root, archive io.Reader, most unpackLimits) error {
	u := unpacking{root: root, left: most}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return u.checkLinks()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := u.add(h, r); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
}

type unpacking struct {
	root  *os.Root
	left  unpackLimits
	links []string
}

func (u *unpacking) add(h *tar.Header, contents io.Reader) error {
	if u.left.entries--; u.left.entries < 0 {
		return errors.New("there are too many entries")
	}
	name, err := localName(h.Name)
	if err != nil || name == "." {
		return err
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return u.root.Chmod(name, 0o755) // whatever the umask
	case tar.TypeReg:
		return u.file(name, h, contents)
	case tar.TypeSymlink:
		u.links = append(u.links, name)
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.hardLink(name, h.Linkname)
	default:
		return fmt.Errorf("it is neither a file nor a folder nor a link (type %q)", h.Typeflag)
	}
}

// file writes a regular file, readable for all, executable where it was for anybody.
func (u *unpacking) file(name string, h *tar.Header, contents io.Reader) (err error) {
	if u.left.bytes -= h.Size; h.Size < 0 || u.left.bytes < 0 {
		return errors.New("there are too many bytes")
	}
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(mode); err != nil { // whatever the umask
		return err
	}
	// A reader of an entry ends at its size; no more is ever written.
	_, err = io.Copy(f, contents)
	return err
}

// hardLink gives a file that was written before a second name.
func (u *unpacking) hardLink(name, target string) error {
	target, err := localName(target)
	if err != nil {
		return err
	}
	info, err := u.root.Lstat(target)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is a second name of %.200q, which is no file", target)
	}
	return u.root.Link(target, name)
}

// localName is an entry's name, cleaned; one that leads out is an error.
func localName(name string) (string, error) {
	clean := path.Clean(name)
	if strings.ContainsRune(name, 0) || !filepath.IsLocal(clean) {
		return "", errors.New("its name leads out of the folder")
	}
	return clean, nil
}

// checkLinks follows every link once all are there, since a link may lead
// through others. Root refuses the way out; a link to nothing is harmless.
func (u *unpacking) checkLinks() error {
	for _, name := range u.links {
		_, err := u.root.Stat(name)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
			continue
		}
		target, _ := u.root.Readlink(name) // for the message alone
		return fmt.Errorf("entry %.200q: it is a link to %.200q, which leads out of the folder", name, target)
	}
	return nil
}
