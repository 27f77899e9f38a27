package kfp

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// pipelineFile is what compilers call the pipeline in an archive.
const pipelineFile = "pipeline.yaml"

// streamFactor bounds what is read of a compressed stream in multiples of
// MaxBytes: other files may lie before the pipeline.
const streamFactor = 8

// unpack finds the text of the package in a file, by what its first bytes say.
func unpack(file string, data []byte, limits Limits) (string, []byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte("PK\x03\x04")), bytes.HasPrefix(data, []byte("PK\x05\x06")):
		return unzip(file, data, limits)
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		return untar(file, data, limits)
	case len(data) > 262 && string(data[257:262]) == "ustar":
		return "", nil, refusal(file, "compress it with gzip, or give the YAML in it", "a tar archive that is not compressed")
	case archiveName(file):
		return "", nil, refusal(file, "make the archive anew, or give the YAML itself", "the name says an archive, the contents are none")
	}
	return file, data, nil
}

func archiveName(file string) bool {
	lower := strings.ToLower(file)
	return strings.HasSuffix(lower, ".zip") || strings.HasSuffix(lower, ".tgz") || strings.HasSuffix(lower, ".tar.gz")
}

// checkEntry refuses entries that would land outside of a folder, or lead there.
func checkEntry(file, name string, mode fs.FileMode) error {
	switch {
	case strings.HasPrefix(name, "/"), strings.Contains(name, `\`), strings.Contains(name, ":/"), strings.ContainsRune(name, 0):
		return refusal(file, "make the archive of relative paths", "entry %q does not have a plain relative path", clip(name, 100))
	case name == "..", strings.HasPrefix(name, "../"), strings.Contains(name, "/../"), strings.HasSuffix(name, "/.."):
		return refusal(file, "make the archive of relative paths", "entry %q leads out of the archive", clip(name, 100))
	case mode&fs.ModeSymlink != 0:
		return refusal(file, "put the file itself into the archive", "entry %q is a symbolic link", clip(name, 100))
	case !mode.IsRegular() && !mode.IsDir():
		return refusal(file, "put only files and folders into the archive", "entry %q is neither a file nor a folder", clip(name, 100))
	}
	return nil
}

func isYAML(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasSuffix(lower, ".yaml") || strings.HasSuffix(lower, ".yml")
}

// rank says how well an entry fits: 2 for the name that compilers use, 1 for
// other YAML, 0 for the rest. The clutter of macOS does not count.
func rank(name string) int {
	base := path.Base(name)
	switch {
	case strings.HasPrefix(base, "._"), strings.HasPrefix(name, "__MACOSX/"):
		return 0
	case strings.EqualFold(base, pipelineFile):
		return 2
	case isYAML(name):
		return 1
	}
	return 0
}

func unzip(file string, data []byte, limits Limits) (string, []byte, error) {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", nil, refusal(file, "make the archive anew", "read the zip archive: %w", err)
	}
	if len(archive.File) > limits.MaxEntries {
		return "", nil, refusal(file, "give the YAML alone", "the archive has %d entries, at most %d are looked at", len(archive.File), limits.MaxEntries)
	}
	var found choice
	for _, entry := range archive.File {
		if err := checkEntry(file, entry.Name, entry.Mode()); err != nil {
			return "", nil, err
		}
		if entry.Mode().IsRegular() && found.better(entry.Name) {
			found.open = entry.Open
		}
	}
	if err := found.check(file); err != nil {
		return "", nil, err
	}
	reader, err := found.open()
	if err != nil {
		return "", nil, refusal(file, "make the archive anew", "read %s in the zip archive: %w", found.name, err)
	}
	text, err := readEntry(file, found.name, reader, limits)
	if closeErr := reader.Close(); err == nil && closeErr != nil {
		err = refusal(file, "make the archive anew", "read %s in the zip archive: %w", found.name, closeErr)
	}
	return file + ":" + found.name, text, err
}

// choice is the best entry of an archive so far.
type choice struct {
	name string
	rank int
	// ties counts the entries that fit as well as the chosen one.
	ties int
	open func() (io.ReadCloser, error)
	text []byte
}

// better takes an entry where it fits better than what there is.
func (c *choice) better(name string) bool {
	r := rank(name)
	switch {
	case r == 0 || r < c.rank:
		return false
	case r == c.rank:
		c.ties++
		// The same name further up is the archive's own.
		if r < 2 || strings.Count(name, "/") >= strings.Count(c.name, "/") {
			return false
		}
	}
	c.name, c.rank = name, r
	if r > 1 || c.ties == 0 {
		c.ties = 1
	}
	return true
}

func (c *choice) check(file string) error {
	switch {
	case c.rank == 0:
		return refusal(file, "put the compiled pipeline into it as "+pipelineFile, "the archive holds no YAML file")
	case c.rank == 1 && c.ties > 1:
		return refusal(file, "call the one that is meant "+pipelineFile, "the archive holds %d YAML files and none is called %s", c.ties, pipelineFile)
	}
	return nil
}

// readEntry reads an entry that may say anything about its size.
func readEntry(file, name string, reader io.Reader, limits Limits) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(reader, limits.MaxBytes+1))
	if err != nil {
		return nil, refusal(file, "make the archive anew", "read %s in the archive: %w", name, err)
	}
	if int64(len(text)) > limits.MaxBytes {
		return nil, refusal(file, "a split into smaller pipelines would fit", "%s has more than %d bytes when unpacked", name, limits.MaxBytes)
	}
	return text, nil
}

// errStream ends the reading of a stream that unpacks to too much.
var errStream = errors.New("the archive unpacks to too much")

// boundedReader fails where more than left bytes are read.
type boundedReader struct {
	from io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errStream
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	return n, err
}

func untar(file string, data []byte, limits Limits) (string, []byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return "", nil, refusal(file, "make the archive anew", "read the gzip file: %w", err)
	}
	archive := tar.NewReader(&boundedReader{from: unzipped, left: limits.MaxBytes * streamFactor})
	var found choice
	for count := 0; ; count++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, tarProblem(file, count, err, limits)
		}
		if count >= limits.MaxEntries {
			return "", nil, refusal(file, "give the YAML alone", "the archive has more than %d entries", limits.MaxEntries)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue // what `git archive` notes about itself
		}
		if header.Typeflag == tar.TypeLink {
			return "", nil, refusal(file, "put the file itself into the archive", "entry %q is a hard link", clip(header.Name, 100))
		}
		if err := checkEntry(file, strings.TrimPrefix(header.Name, "./"), header.FileInfo().Mode()); err != nil {
			return "", nil, err
		}
		if !header.FileInfo().Mode().IsRegular() || !found.better(header.Name) {
			continue
		}
		if found.text, err = readEntry(file, header.Name, archive, limits); err != nil {
			return "", nil, err
		}
	}
	if err := found.check(file); err != nil {
		return "", nil, err
	}
	return file + ":" + found.name, found.text, nil
}

func tarProblem(file string, count int, err error, limits Limits) error {
	switch {
	case errors.Is(err, errStream):
		return refusal(file, "give the YAML alone", "the archive has more than %d bytes when unpacked", limits.MaxBytes*streamFactor)
	case count == 0:
		return refusal(file, "give a .tar.gz, a .zip, or the YAML itself", "a gzip file that holds no tar archive")
	}
	return refusal(file, "make the archive anew", "read the archive: %w", fmt.Errorf("entry %d: %w", count+1, err))
}
