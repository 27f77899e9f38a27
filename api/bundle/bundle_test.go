package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/problem"
)

// file is one entry as the tests make it.
type file struct {
	path string
	data []byte
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// sample is a bundle with one of everything.
func sample() (*Manifest, []file) {
	weights := make([]byte, 2*blockSize+17)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(weights) // it never fails
	files := []file{
		{"objects/pipelines/train.jsonl", []byte(`{"kind":"Pipeline"}` + "\n")},
		{"objects/runs/r1.jsonl", []byte(strings.Repeat(`{"kind":"Task","metadata":{"name":"a"}}`+"\n", 5_000))},
		{"artifacts/weights", weights},
		{"artifacts/data/a.txt", []byte("a")},
		{"artifacts/data/sub/empty", nil},
		{"artifacts/data/sub/zeros", make([]byte, blockSize+100)},
		{"images/0.tar", []byte("not looked at here")},
	}
	m := &Manifest{
		Format: Format, Version: Version, Created: time.Unix(1_700_000_000, 123).UTC(), Namespace: "default",
		Artifacts: []Artifact{
			{Name: "weights", Digest: "sha256:" + hashOf(weights)},
			{Name: "data", Digest: "sha256:" + hashOf(nil), Folder: true, Folders: []string{"sub", "none"}, Links: []Link{{"sub/up", "../a.txt"}}},
		},
		Images: []Image{{Refs: []string{"busybox"}, ID: "sha256:" + hashOf([]byte("x")), Entry: "images/0.tar"}},
		Needs:  []Need{{Kind: "Secret", Name: "db", Keys: []string{"user"}}},
	}
	for _, f := range files {
		m.Entries = append(m.Entries, Entry{Path: f.path, Size: int64(len(f.data)), SHA256: hashOf(f.data), Executable: f.path == "artifacts/data/a.txt"})
	}
	return m, files
}

func write(t *testing.T, m *Manifest, files []file, how Compression) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, m, how)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := w.Add(bytes.NewReader(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readAll reads a bundle to its end.
func readAll(data []byte, limits Limits) (*Manifest, []file, error) {
	r, err := NewReader(bytes.NewReader(data), limits)
	if err != nil {
		return nil, nil, err
	}
	var files []file
	for {
		entry, contents, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Manifest(), files, nil
		}
		if err != nil {
			return nil, files, err
		}
		data, err := io.ReadAll(contents)
		if err != nil {
			return nil, files, err
		}
		files = append(files, file{entry.Path, data})
	}
}

func TestRoundTrip(t *testing.T) {
	m, files := sample()
	for name, how := range map[string]Compression{"stored": Stored, "squeezed": Squeezed, "tar": Uncompressed} {
		t.Run(name, func(t *testing.T) {
			data := write(t, m, files, how)
			if !Sniff(data[:min(len(data), SniffBytes)]) {
				t.Error("Sniff does not take it for a bundle")
			}
			got, back, err := readAll(data, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got); diff != "" {
				t.Errorf("manifest (-want +got):\n%s", diff)
			}
			for i := range files {
				if back[i].path != files[i].path || !bytes.Equal(back[i].data, files[i].data) {
					t.Errorf("%s came back as %s of %d bytes", files[i].path, back[i].path, len(back[i].data))
				}
			}
			// The same bytes whenever it is written.
			if again := write(t, m, files, how); !bytes.Equal(data, again) {
				t.Error("a second writing has other bytes")
			}
		})
	}
}

// TestOtherToolsReadIt: a bundle is an ordinary archive.
func TestOtherToolsReadIt(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("there is no tar")
	}
	m, files := sample()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "-xzf", "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(write(t, m, files, Squeezed))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// And one that tar and gzip have packed anew is taken.
	names := []string{ManifestName}
	for _, f := range files {
		names = append(names, f.path)
	}
	pack := exec.CommandContext(t.Context(), "tar", append([]string{"-cf", "-", "-C", dir, "--"}, names...)...)
	packed, err := pack.Output()
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(packed); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{packed, zipped.Bytes()} {
		if _, back, err := readAll(data, Limits{}); err != nil || len(back) != len(files) {
			t.Errorf("packed by tar: %d entries, %v", len(back), err)
		}
	}
}

func TestSqueezedIsSmaller(t *testing.T) {
	m, files := sample()
	stored, squeezed := len(write(t, m, files, Stored)), len(write(t, m, files, Squeezed))
	// The zeros go; the weights are as long as they were, and no longer.
	if squeezed > stored-blockSize/2 || squeezed < 2*blockSize {
		t.Errorf("stored %d bytes, squeezed %d", stored, squeezed)
	}
}

// TestOwnBundlesAreNoBombs: whatever shrinks well stays within what readers take.
func TestOwnBundlesAreNoBombs(t *testing.T) {
	data := make([]byte, 4<<20)
	m := &Manifest{Format: Format, Version: Version, Namespace: "d",
		Artifacts: []Artifact{{Name: "z", Digest: "sha256:" + hashOf(data)}},
		Entries:   []Entry{{Path: "artifacts/z", Size: int64(len(data)), SHA256: hashOf(data)}}}
	zipped := write(t, m, []file{{"artifacts/z", data}}, Squeezed)
	if len(zipped) > len(data)/4 {
		t.Errorf("zeros take %d bytes", len(zipped))
	}
	if _, _, err := readAll(zipped, Limits{RatioFloor: 1}); err != nil {
		t.Error(err)
	}
}

func TestWriterFindsChanges(t *testing.T) {
	m, files := sample()
	for name, contents := range map[string]string{"longer": "x" + string(files[0].data), "shorter": "x", "another": strings.Repeat("x", len(files[0].data))} {
		w, err := NewWriter(io.Discard, m, Stored)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(strings.NewReader(contents)); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v; want ErrChanged", name, err)
		}
		if err := w.Close(); err == nil {
			t.Errorf("%s: the bundle was closed as if it were whole", name)
		}
	}
}

// raw packs a manifest and headers as they are, however wrong.
type raw struct {
	manifest any
	headers  []tar.Header
	data     [][]byte
	// tail follows the archive's end.
	tail []byte
}

func (r *raw) pack(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(r.manifest)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data []byte) {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg && h.Size == 0 {
			h.Size = int64(len(data))
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: ManifestName}, text)
	for i, h := range r.headers {
		add(h, r.data[i])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), r.tail...)
}

// small is a bundle of two objects, to be spoilt.
func small() *raw {
	a, b := []byte("first"), []byte("second")
	return &raw{
		manifest: &Manifest{Format: Format, Version: Version, Namespace: "default", Entries: []Entry{
			{Path: "objects/runs/a.jsonl", Size: 5, SHA256: hashOf(a)}, {Path: "objects/runs/b.jsonl", Size: 6, SHA256: hashOf(b)},
		}},
		headers: []tar.Header{{Name: "objects/runs/a.jsonl"}, {Name: "objects/runs/b.jsonl"}},
		data:    [][]byte{a, b},
	}
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRefusals(t *testing.T) {
	manifest := func(change func(*Manifest)) func(*raw) {
		return func(r *raw) { change(r.manifest.(*Manifest)) }
	}
	artifact := func(a Artifact, paths ...string) func(*raw) {
		return manifest(func(m *Manifest) {
			m.Artifacts = append(m.Artifacts, a)
			for _, p := range paths {
				m.Entries = append(m.Entries, Entry{Path: p, SHA256: hashOf(nil)})
			}
		})
	}
	digest := "sha256:" + hashOf(nil)
	for _, tc := range []struct {
		name string
		// spoil changes the bundle, bytes what it is packed to.
		spoil  func(*raw)
		bytes  func(t *testing.T, data []byte) []byte
		limits Limits
		want   string
	}{
		{name: "nothing", bytes: func(*testing.T, []byte) []byte { return nil }, want: "it is empty"},
		{name: "no archive", bytes: func(*testing.T, []byte) []byte { return []byte(strings.Repeat("no bundle ", 100)) }, want: "damaged at its first entry"},
		{name: "another archive", spoil: func(r *raw) {}, bytes: func(t *testing.T, _ []byte) []byte {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}), w.Close()); err != nil {
				t.Fatal(err)
			}
			return out.Bytes()
		}, want: `first entry is "x"`},
		{name: "no JSON", spoil: func(r *raw) { r.manifest = "text" }, want: "not the JSON"},
		{name: "another format", spoil: manifest(func(m *Manifest) { m.Format = "x" }), want: `says the format "x"`},
		{name: "unknown version", spoil: manifest(func(m *Manifest) { m.Version = 2 }), want: "version 2; this skiff reads version 1"},
		{name: "manifest too large", limits: Limits{ManifestBytes: 10}, want: "at most 10 are read"},
		{name: "too many entries", limits: Limits{Entries: 1}, want: "lists 2 entries; at most 1"},
		{name: "too many bytes", limits: Limits{Bytes: 10}, want: "more than the 10 bytes that there is room for"},
		{name: "too many bytes of objects", limits: Limits{ObjectBytes: 10}, want: "objects have more than 10 bytes"},
		{name: "sizes that overflow", spoil: manifest(func(m *Manifest) { m.Entries[0].Size = 1<<63 - 1 }), want: "more than"},
		{name: "negative size", spoil: manifest(func(m *Manifest) { m.Entries[0].Size = -1 }), want: "has the size -1"},
		{name: "listed twice", spoil: manifest(func(m *Manifest) { m.Entries[1] = m.Entries[0] }), want: "lists the entry \"objects/runs/a.jsonl\" twice"},
		{name: "digest of another kind", spoil: manifest(func(m *Manifest) { m.Entries[0].SHA256 = "md5" }), want: "64 hexadecimal digits"},
		{name: "unknown folder", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "etc/passwd" }), want: "none of objects/"},
		{name: "absolute path", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "/objects/a" }), want: "absolute path"},
		{name: "path out", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "objects/../../a" }), want: "leads out"},
		{name: "path with a dot", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "objects/./a" }), want: "a dot in its path"},
		{name: "path with NUL", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "objects/a\x00b" }), want: "not text"},
		{name: "path too long", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "objects/" + strings.Repeat("a/", 3000) }), want: "has a name of"},
		{name: "long segment", spoil: manifest(func(m *Manifest) { m.Entries[0].Path = "objects/" + strings.Repeat("a", 300) }), want: "segment of 300 bytes"},
		{name: "file of no artifact", spoil: artifact(Artifact{Name: "a", Digest: digest}, "artifacts/a", "artifacts/b"), want: "belongs to no artifact"},
		{name: "file of no folder", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true}, "artifacts/a/b/c"), want: "belongs to no artifact"},
		{name: "artifact without a file", spoil: artifact(Artifact{Name: "a", Digest: digest}), want: "a folder and a file, or neither"},
		{name: "artifact twice", spoil: func(r *raw) {
			artifact(Artifact{Name: "a", Digest: digest}, "artifacts/a")(r)
			artifact(Artifact{Name: "a", Digest: digest})(r)
		}, want: "lists the artifact a twice"},
		{name: "artifact's name", spoil: artifact(Artifact{Name: "../a", Digest: digest}), want: "plain name"},
		{name: "artifact's digest", spoil: artifact(Artifact{Name: "a", Digest: "sha256:x"}), want: "has the digest"},
		{name: "folder out", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Folders: []string{"../b"}}), want: "leads out"},
		{name: "folder before its own", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Folders: []string{"b/c", "b"}}), want: "not below one that is listed before"},
		{name: "folder over a file", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Folders: []string{"b"}}, "artifacts/a/b"), want: "listed twice"},
		{name: "link out", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Links: []Link{{"l", "../../x"}}}), want: "leads out of it"},
		{name: "absolute link", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Links: []Link{{"l", "/etc/passwd"}}}), want: "leads out of it"},
		{name: "link over a file", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Links: []Link{{"b", "c"}}}, "artifacts/a/b"), want: "listed twice"},
		{name: "file below a link", spoil: artifact(Artifact{Name: "a", Digest: digest, Folder: true, Links: []Link{{"b", "c"}}}, "artifacts/a/b/x"), want: "belongs to no artifact"},
		{name: "image without a file", spoil: manifest(func(m *Manifest) { m.Images = []Image{{ID: digest, Entry: "images/0.tar"}} }), want: "not there"},
		{name: "file of no image", spoil: manifest(func(m *Manifest) { m.Entries = append(m.Entries, Entry{Path: "images/0.tar", SHA256: hashOf(nil)}) }), want: "belongs to no image"},
		{name: "entry missing at the end", spoil: func(r *raw) { r.headers, r.data = r.headers[:1], r.data[:1] }, want: `ends before the entry "objects/runs/b.jsonl"`},
		{name: "entry missing", spoil: func(r *raw) { r.headers, r.data = r.headers[1:], r.data[1:] }, want: `"objects/runs/a.jsonl" is missing`},
		{name: "duplicate entry", spoil: func(r *raw) { r.headers[1], r.data[1] = r.headers[0], r.data[0] }, want: `"objects/runs/a.jsonl" comes twice`},
		{name: "second manifest", spoil: func(r *raw) { r.headers[1].Name = ManifestName }, want: "comes twice"},
		{name: "entry too many", spoil: func(r *raw) {
			r.headers, r.data = append(r.headers, tar.Header{Name: "objects/c"}), append(r.data, nil)
		}, want: `"objects/c" is not in its manifest`},
		{name: "entry out", spoil: func(r *raw) { r.headers[0].Name = "../../etc/passwd" }, want: "leads out"},
		{name: "absolute entry", spoil: func(r *raw) { r.headers[0].Name = "/etc/passwd" }, want: "absolute"},
		{name: "symbolic link", spoil: func(r *raw) {
			r.headers[0] = tar.Header{Name: r.headers[0].Name, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}
			r.data[0] = nil
		}, want: "is a link"},
		{name: "hard link", spoil: func(r *raw) {
			r.headers[0] = tar.Header{Name: r.headers[0].Name, Typeflag: tar.TypeLink, Linkname: ManifestName}
			r.data[0] = nil
		}, want: "is a link"},
		{name: "device", spoil: func(r *raw) {
			r.headers[0] = tar.Header{Name: r.headers[0].Name, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}
			r.data[0] = nil
		}, want: "not a plain file"},
		{name: "folder entry", spoil: func(r *raw) {
			r.headers[0] = tar.Header{Name: "objects", Typeflag: tar.TypeDir}
			r.data[0] = nil
		}, want: "not a plain file"},
		{name: "wrong digest", spoil: func(r *raw) { r.data[1] = []byte("secone") }, want: "does not have the digest"},
		{name: "wrong size", spoil: func(r *raw) { r.data[1] = []byte("seconds") }, want: "has 7 bytes; its manifest says 6"},
		{name: "something behind", spoil: func(r *raw) { r.tail = []byte("x") }, want: "something follows"},
		{name: "much behind", spoil: func(r *raw) { r.tail = make([]byte, maxTail+2048) }, want: "follow its last entry"},
		{name: "broken off", bytes: func(_ *testing.T, data []byte) []byte { return data[:len(data)-2048-512-100] }, want: "not whole"},
		{name: "gzip broken off", bytes: func(t *testing.T, data []byte) []byte { z := zip(t, data); return z[:len(z)-20] }, want: "not whole"},
		{name: "gzip without its last byte", bytes: func(t *testing.T, data []byte) []byte { z := zip(t, data); return z[:len(z)-1] }, want: "not whole"},
		{name: "gzip with another checksum", bytes: func(t *testing.T, data []byte) []byte { z := zip(t, data); z[len(z)-6] ^= 1; return z }, want: "damaged"},
		{name: "gzip with a flipped bit", bytes: func(t *testing.T, data []byte) []byte { z := zip(t, data); z[len(z)/2] ^= 8; return z }, want: ""},
		{name: "bytes behind gzip", bytes: func(t *testing.T, data []byte) []byte { return append(zip(t, data), "junk that is no gzip"...) }, want: "damaged at its end"},
		{name: "bomb", spoil: func(r *raw) {
			zeros := make([]byte, 8<<20)
			r.data[1] = zeros
			r.manifest.(*Manifest).Entries[1] = Entry{Path: "objects/runs/b.jsonl", Size: int64(len(zeros)), SHA256: hashOf(zeros)}
		}, bytes: func(t *testing.T, data []byte) []byte { return zip(t, data) }, limits: Limits{RatioFloor: 1 << 20}, want: "more than 100 times"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := small()
			if tc.spoil != nil {
				tc.spoil(r)
			}
			data := r.pack(t)
			if tc.bytes != nil {
				data = tc.bytes(t, data)
			}
			_, _, err := readAll(data, tc.limits)
			if err == nil {
				t.Fatal("it was taken")
			}
			if !errors.Is(err, problem.ErrInvalid) {
				t.Errorf("not of class ErrInvalid: %v", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want %q in it", err, tc.want)
			}
		})
	}
	// What was spoilt is taken where it is not.
	if _, files, err := readAll(small().pack(t), Limits{}); err != nil || len(files) != 2 {
		t.Errorf("unspoilt: %v", err)
	}
	if _, _, err := readAll(zip(t, small().pack(t)), Limits{}); err != nil {
		t.Errorf("unspoilt, zipped: %v", err)
	}
}

// TestSparse: a hole takes no room in an archive, and any on a disk.
func TestSparse(t *testing.T) {
	r := small()
	r.headers[0].PAXRecords = map[string]string{"SKIFFx": "1"}
	data := r.pack(t)
	if _, _, err := readAll(data, Limits{}); err != nil {
		t.Fatalf("records that mean nothing: %v", err)
	}
	if plain(&tar.Header{Typeflag: tar.TypeGNUSparse}) || plain(&tar.Header{Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GNU.sparse.size": "1"}}) {
		t.Error("a sparse file is taken for a plain one")
	}
}

// TestReadErrorsAreNoRefusals: a disk that fails is no fault of the bundle's.
func TestReadErrorsAreNoRefusals(t *testing.T) {
	broken := errors.New("input/output error")
	data := zip(t, small().pack(t))
	for _, at := range []int{0, 1, 50, len(data) - 3} {
		r, err := NewReader(io.MultiReader(bytes.NewReader(data[:at]), errReader{broken}), Limits{})
		for err == nil {
			_, _, err = r.Next()
		}
		if !errors.Is(err, broken) || errors.Is(err, problem.ErrInvalid) {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// TestCopy: what is copied is checked as what is read is, and a disk that is full
// is no fault of the bundle's.
func TestCopy(t *testing.T) {
	m, files := sample()
	data := write(t, m, files, Stored)
	full := errors.New("no space left on device")
	for _, spoil := range []bool{false, true} {
		data := bytes.Clone(data)
		if spoil {
			data[len(data)/2] ^= 1 // in the weights
		}
		r, err := NewReader(bytes.NewReader(data), Limits{})
		for i := 0; err == nil; i++ {
			if _, _, err = r.Next(); err == nil {
				var out bytes.Buffer
				err = r.Copy(&out)
				if err == nil && !bytes.Equal(out.Bytes(), files[i].data) {
					t.Errorf("%s was copied as another", files[i].path)
				}
				if err == nil && r.Copy(&out) != nil {
					t.Error("what is copied was copied again")
				}
			}
		}
		if spoil != errors.Is(err, problem.ErrInvalid) || spoil == errors.Is(err, io.EOF) {
			t.Errorf("spoilt is %v: %v", spoil, err)
		}
	}
	for i := range files {
		r, err := NewReader(bytes.NewReader(data), Limits{})
		for range i + 1 {
			if err == nil {
				_, _, err = r.Next()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		err = r.Copy(&failing{left: int64(len(files[i].data)) / 2, err: full})
		if len(files[i].data) > 0 && (!errors.Is(err, full) || errors.Is(err, problem.ErrInvalid)) {
			t.Errorf("%s: %v", files[i].path, err)
		}
	}
}

func TestSniff(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "YAML": "pipelineInfo:\n  name: x\n", "zip": "PK\x03\x04", "gzip": "\x1f\x8b", "name alone": ManifestName} {
		if Sniff([]byte(text)) {
			t.Errorf("%s is taken for a bundle", name)
		}
	}
}

// FuzzReader: whatever the bytes, reading ends, with an error or with exactly
// what the manifest says.
func FuzzReader(f *testing.F) {
	data := small().pack(f)
	f.Add(data)
	f.Add(zip(f, data))
	f.Add(zip(f, data)[:100])
	r := small()
	r.headers[0].Typeflag = tar.TypeSymlink
	r.data[0] = nil
	f.Add(r.pack(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{Bytes: 1 << 20, ObjectBytes: 1 << 20, ManifestBytes: 1 << 20, Entries: 100}
		m, files, err := readAll(data, limits)
		if err != nil {
			if m != nil {
				t.Error("an error and a manifest")
			}
			if !errors.Is(err, problem.ErrInvalid) {
				t.Errorf("bytes in memory cannot fail but by what they are: %v", err)
			}
			return
		}
		if len(files) != len(m.Entries) {
			t.Fatalf("%d entries of %d", len(files), len(m.Entries))
		}
		for i, e := range m.Entries {
			if files[i].path != e.Path || int64(len(files[i].data)) != e.Size || hashOf(files[i].data) != e.SHA256 || !filepath.IsLocal(e.Path) {
				t.Errorf("entry %q is not what the manifest says", e.Path)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	data := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	m := &Manifest{Format: Format, Version: Version, Namespace: "d", Artifacts: []Artifact{{Name: "z", Digest: "sha256:" + hashOf(data)}},
		Entries: []Entry{{Path: "artifacts/z", Size: int64(len(data)), SHA256: hashOf(data)}}}
	for _, how := range []Compression{Stored, Uncompressed} {
		b.Run(fmt.Sprint(how), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				w, err := NewWriter(io.Discard, m, how)
				if err == nil {
					err = errors.Join(w.Add(bytes.NewReader(data)), w.Close())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	m, files := sample()
	files[2].data = make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(files[2].data)
	m.Entries[2].Size, m.Entries[2].SHA256 = int64(len(files[2].data)), hashOf(files[2].data)
	for _, how := range []Compression{Stored, Uncompressed} {
		var out bytes.Buffer
		w, err := NewWriter(&out, m, how)
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range files {
			if err := w.Add(bytes.NewReader(f.data)); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(how), func(b *testing.B) {
			b.SetBytes(int64(out.Len()))
			for b.Loop() {
				r, err := NewReader(bytes.NewReader(out.Bytes()), Limits{})
				for err == nil {
					_, _, err = r.Next()
				}
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
		})
	}
}
