package bundle

import (
	"encoding/json"
	"fmt"
	"math"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of the format.
const (
	// ManifestName is the first entry's.
	ManifestName = "skiff-bundle.json"
	// Format is what every manifest says of itself.
	Format = "skiff.dev/bundle"
	// Version is of the layout that this package writes and reads.
	Version = 1
)

// The folders of entries.
const (
	ObjectsDir   = "objects"
	ArtifactsDir = "artifacts"
	ImagesDir    = "images"
)

// Manifest says what a bundle holds.
type Manifest struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	// Skiff is the version of the program that wrote the bundle, Store the id of
	// the state it comes from, Namespace where in it.
	Skiff     string `json:"skiff,omitempty"`
	Store     string `json:"store,omitempty"`
	Namespace string `json:"namespace"`

	Pipelines []Pipeline `json:"pipelines,omitempty"`
	Runs      []Run      `json:"runs,omitempty"`
	// Artifacts are those whose contents are in the bundle.
	Artifacts []Artifact `json:"artifacts,omitempty"`
	// Images are what the runs ran, and what the pipelines name.
	Images []Image `json:"images,omitempty"`
	// Needs are objects that are not in the bundle and that steps ask for.
	Needs []Need `json:"needs,omitempty"`

	Entries []Entry `json:"entries"`
}

// Entry is one file of the archive.
type Entry struct {
	Path string `json:"path"`
	// Size is in bytes, SHA256 64 hexadecimal digits.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Executable files keep that.
	Executable bool `json:"executable,omitempty"`
}

// Pipeline sums up an entry of objects/pipelines.
type Pipeline struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Versions int    `json:"versions"`
}

// Run sums up an entry of objects/runs.
type Run struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName,omitempty"`
	Pipeline    string `json:"pipeline"`
	State       string `json:"state"`
}

// Artifact is what the contents of an artifact are.
type Artifact struct {
	// Name is the Artifact object's. Its files are the entries below it.
	Name string `json:"name"`
	// Digest is the content hash as skiff computes it (store/artifact): of a
	// folder, that of its listing.
	Digest string `json:"digest"`
	// Folder artifacts have Folders (all, outer before inner) and Links, with
	// paths in the artifact.
	Folder  bool     `json:"folder,omitempty"`
	Folders []string `json:"folders,omitempty"`
	Links   []Link   `json:"links,omitempty"`
}

// Link is a symbolic link that ends inside its artifact.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// Image is a container image.
type Image struct {
	// Refs are the names under which steps ask for it.
	Refs []string `json:"refs"`
	// Digest is what runs recorded of it: the registry's, or its own id. ID is
	// the image's own.
	Digest string `json:"digest,omitempty"`
	ID     string `json:"id,omitempty"`
	// Entry is the path of its archive; empty where it is not in the bundle.
	Entry string `json:"entry,omitempty"`
}

// Need is an object that steps ask for by name. Values are never exported.
type Need struct {
	// Kind is Secret, ConfigMap or PersistentVolumeClaim.
	Kind string `json:"kind"`
	// Name is empty where it is an input; Input then says which.
	Name  string `json:"name,omitempty"`
	Input string `json:"input,omitempty"`
	// Keys are those that are asked for; none means all there are.
	Keys     []string `json:"keys,omitempty"`
	Optional bool     `json:"optional,omitempty"`
}

// Limits bound what a reader takes. Zero fields mean the defaults.
type Limits struct {
	// ManifestBytes bounds the manifest, Entries how many files it may list.
	ManifestBytes int64
	Entries       int
	// ObjectBytes bounds all entries of objects together: they are held in
	// memory and stored in one transaction.
	ObjectBytes int64
	// Bytes bounds all entries together.
	Bytes int64
	// Ratio bounds how many times as long a compressed bundle may become, beyond
	// RatioFloor bytes that any may.
	Ratio, RatioFloor int64
}

// The default limits.
const (
	// DefaultManifestBytes has room for DefaultEntries of usual paths.
	DefaultManifestBytes = 128 << 20
	// DefaultEntries is a run of ten thousand steps with fifty files each.
	DefaultEntries = 500_000
	// DefaultObjectBytes is a run of some 50,000 tasks.
	DefaultObjectBytes = 128 << 20
	// DefaultRatio is far above what compressed text reaches; deflate itself ends
	// at 1032.
	DefaultRatio = 100
	// DefaultRatioFloor is what a small bundle may expand to whatever its ratio.
	DefaultRatioFloor = 64 << 20
)

// WithDefaults fills in the fields that are zero.
func (l Limits) WithDefaults() Limits {
	if l.ManifestBytes <= 0 {
		l.ManifestBytes = DefaultManifestBytes
	}
	if l.Entries <= 0 {
		l.Entries = DefaultEntries
	}
	if l.ObjectBytes <= 0 {
		l.ObjectBytes = DefaultObjectBytes
	}
	if l.Bytes <= 0 {
		l.Bytes = math.MaxInt64
	}
	if l.Ratio <= 0 {
		l.Ratio = DefaultRatio
	}
	if l.RatioFloor <= 0 {
		l.RatioFloor = DefaultRatioFloor
	}
	return l
}

// Size is the bytes of all entries together.
func (m *Manifest) Size() int64 {
	var sum int64
	for i := range m.Entries {
		sum += m.Entries[i].Size
	}
	return sum
}

// decodeManifest reads a manifest and checks all that it says by itself.
func decodeManifest(data []byte, limits Limits) (*Manifest, error) {
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, refuse("make the bundle anew", "its manifest, %s, is not the JSON that it should be: %w", ManifestName, err)
	}
	switch {
	case head.Format != Format:
		return nil, refuse("make it with skiff export", "its manifest says the format %.80q, not %q", head.Format, Format)
	case head.Version != Version:
		return nil, refuse("import it with the skiff that wrote it, or a newer one", "its manifest has version %d; this skiff reads version %d", head.Version, Version)
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, refuse("make the bundle anew", "its manifest, %s, is not the JSON that it should be: %w", ManifestName, err)
	}
	if err := m.check(limits); err != nil {
		return nil, err
	}
	return m, nil
}

// check refuses a manifest whose parts do not fit together.
func (m *Manifest) check(limits Limits) error {
	if len(m.Entries) > limits.Entries {
		return refuse("export less at once", "it lists %d entries; at most %d are taken", len(m.Entries), limits.Entries)
	}
	seen := make(map[string]bool, len(m.Entries))
	var total, objects int64
	for i := range m.Entries {
		e := &m.Entries[i]
		if err := e.check(); err != nil {
			return err
		}
		if seen[e.Path] {
			return refuse(damaged, "it lists the entry %q twice", e.Path)
		}
		seen[e.Path] = true
		if e.Size > limits.Bytes-total {
			return refuse("make room, or export less at once", "its entries have more than the %d bytes that there is room for", limits.Bytes)
		}
		total += e.Size
		if strings.HasPrefix(e.Path, ObjectsDir+"/") {
			if objects += e.Size; objects > limits.ObjectBytes {
				return refuse("export its runs one by one", "its objects have more than %d bytes", limits.ObjectBytes)
			}
		}
	}
	if err := m.checkArtifacts(seen); err != nil {
		return err
	}
	return m.checkImages(seen)
}

// damaged is the hint where only another bundle helps.
const damaged = "the bundle was changed or damaged; export it anew"

func (e *Entry) check() error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	switch {
	case e.Size < 0:
		return refuse(damaged, "the entry %q has the size %d", e.Path, e.Size)
	case !isHash(e.SHA256):
		return refuse(damaged, "the entry %q has the digest %.80q; want 64 hexadecimal digits", e.Path, e.SHA256)
	}
	top, rest, _ := strings.Cut(e.Path, "/")
	switch {
	case rest == "", top != ObjectsDir && top != ArtifactsDir && top != ImagesDir:
		return refuse(damaged, "the entry %q is none of %s/, %s/ and %s/", e.Path, ObjectsDir, ArtifactsDir, ImagesDir)
	case top == ImagesDir && strings.Contains(rest, "/"):
		return refuse(damaged, "the entry %q lies too deep", e.Path)
	}
	return nil
}

// maxPath is what Linux takes for a path, maxSegment for one name in it.
const (
	maxPath    = 4096
	maxSegment = 255
)

// checkPath refuses what is not a plain relative path.
func checkPath(p string) error {
	const hint = "a bundle holds plain relative paths; " + damaged
	switch {
	case p == "":
		return refuse(hint, "an entry has no name")
	case len(p) > maxPath:
		return refuse(hint, "the entry %.60q… has a name of %d bytes", p, len(p))
	case strings.HasPrefix(p, "/"):
		return refuse(hint, "the entry %q has an absolute path", p)
	case !utf8.ValidString(p) || strings.ContainsRune(p, 0):
		return refuse(hint, "the entry %q has a name that is not text", p)
	}
	for segment := range strings.SplitSeq(p, "/") {
		switch {
		case segment == "..":
			return refuse(hint, "the entry %q leads out of the bundle", p)
		case segment == "" || segment == ".":
			return refuse(hint, "the entry %q has an empty segment or a dot in its path", p)
		case len(segment) > maxSegment:
			return refuse(hint, "the entry %.60q… has a segment of %d bytes in its path", p, len(segment))
		}
	}
	return nil
}

func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// checkArtifacts makes sure that every file of artifacts/ belongs to one
// artifact, below folders that are listed, and that nothing is two things.
func (m *Manifest) checkArtifacts(entries map[string]bool) error {
	places := map[string]bool{} // folders and links, by path in the archive
	folders := map[string]bool{}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		at := ArtifactsDir + "/" + a.Name
		switch {
		case checkPath(a.Name) != nil || strings.Contains(a.Name, "/"):
			return refuse(damaged, "the artifact %.80q does not have a plain name", a.Name)
		case !strings.HasPrefix(a.Digest, "sha256:") || !isHash(strings.TrimPrefix(a.Digest, "sha256:")):
			return refuse(damaged, "the artifact %s has the digest %.80q", a.Name, a.Digest)
		case places[at] || folders[at]:
			return refuse(damaged, "it lists the artifact %s twice", a.Name)
		case a.Folder == entries[at]:
			return refuse(damaged, "the artifact %s is to be a folder and a file, or neither", a.Name)
		case !a.Folder:
			if len(a.Folders)+len(a.Links) > 0 {
				return refuse(damaged, "the artifact %s is a file and has folders in it", a.Name)
			}
			places[at] = true
			continue
		}
		folders[at] = true
		if err := a.checkFolder(at, entries, places, folders); err != nil {
			return err
		}
	}
	for i := range m.Entries {
		p := m.Entries[i].Path
		if strings.HasPrefix(p, ArtifactsDir+"/") && !places[p] && !folders[path.Dir(p)] {
			return refuse(damaged, "the entry %q belongs to no artifact", p)
		}
	}
	return nil
}

func (a *Artifact) checkFolder(at string, entries, places, folders map[string]bool) error {
	taken := func(p string) bool { return entries[p] || places[p] || folders[p] }
	for _, folder := range a.Folders {
		p := at + "/" + folder
		if err := checkPath(p); err != nil {
			return err
		}
		if taken(p) || !folders[path.Dir(p)] {
			return refuse(damaged, "the folder %q of artifact %s is listed twice, or not below one that is listed before", folder, a.Name)
		}
		folders[p] = true
	}
	for _, link := range a.Links {
		p := at + "/" + link.Path
		if err := checkPath(p); err != nil {
			return err
		}
		if taken(p) || !folders[path.Dir(p)] {
			return refuse(damaged, "the link %q of artifact %s is listed twice, or not below a folder that is listed", link.Path, a.Name)
		}
		if link.Target == "" || len(link.Target) >= maxPath || strings.ContainsRune(link.Target, 0) || path.IsAbs(link.Target) ||
			!inside(path.Join(path.Dir(link.Path), link.Target)) {
			return refuse(damaged, "the link %q of artifact %s leads out of it", link.Path, a.Name)
		}
		places[p] = true
	}
	return nil
}

// inside reports whether a cleaned relative path stays below where it begins.
// Where it goes through other links is for those to find who make it.
func inside(p string) bool { return p != ".." && !strings.HasPrefix(p, "../") }

func (m *Manifest) checkImages(entries map[string]bool) error {
	named := map[string]bool{}
	for i := range m.Images {
		image := &m.Images[i]
		if image.Entry == "" {
			continue
		}
		switch {
		case !entries[image.Entry] || path.Dir(image.Entry) != ImagesDir || named[image.Entry]:
			return refuse(damaged, "the image %s names the entry %.80q, which is not there or another's", image.ID, image.Entry)
		case !strings.HasPrefix(image.ID, "sha256:") || !isHash(strings.TrimPrefix(image.ID, "sha256:")):
			return refuse(damaged, "the image in %s has the id %.80q", image.Entry, image.ID)
		}
		named[image.Entry] = true
	}
	for i := range m.Entries {
		if p := m.Entries[i].Path; strings.HasPrefix(p, ImagesDir+"/") && !named[p] {
			return refuse(damaged, "the entry %q belongs to no image", p)
		}
	}
	return nil
}

// encode writes the manifest as it stands in the archive.
func (m *Manifest) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode the bundle's manifest: %w", err)
	}
	return append(data, '\n'), nil
}
