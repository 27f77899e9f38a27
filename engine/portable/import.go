package portable

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// ImportRequest says where a bundle goes.
type ImportRequest struct {
	Namespace string
	// As gives the bundle's pipeline another name.
	As string
	// DryRun checks everything and writes nothing.
	DryRun bool
}

// Report is what an import did, or would do.
type Report struct {
	// Created and Present are pipelines, versions and runs, as "run ID".
	Created, Present []string
	// Artifacts counts the artifacts whose contents came, Images the images that
	// were not here; in a dry run, all that are in the bundle.
	Artifacts, Images int
	// Bytes is the size of all that was read, unpacked.
	Bytes int64
	// Missing is what steps need that is not here.
	Missing []bundle.Need
}

// reserve of the disk is left to the store and to what runs.
const reserve = 256 << 20

// importing is one import under way.
type importing struct {
	p   *Porter
	req ImportRequest
	id  string

	reader   *bundle.Reader
	manifest *bundle.Manifest
	cargo    *cargo
	stage    *artifact.Stage // nil in a dry run
	disk     *artifact.Disk  // writes to the stage
	// files are the hashes of the artifacts' files by their path in the bundle.
	files map[string]artifact.Node
	// staged are the names in the stage of artifacts, by artifact, and of images,
	// by entry.
	staged map[string]string
}

// Import takes a bundle in: all of it, or nothing. A bundle that is at fault, or
// does not go with what is here, is of class problem.ErrInvalid.
func (p *Porter) Import(ctx context.Context, req ImportRequest, r io.Reader) (report *Report, err error) {
	if !core.IsDNSSubdomain(req.Namespace) {
		return nil, refuse("namespace", "", "%q is not a namespace's name", req.Namespace)
	}
	limits := p.cfg.Limits
	free, err := p.cfg.Artifacts.Free()
	if err != nil {
		return nil, err
	}
	if limits.Bytes == 0 || limits.Bytes > free-reserve {
		limits.Bytes = max(1, free-reserve)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an import's id: %w", err)
	}
	in := &importing{p: p, req: req, id: id.String(), cargo: newCargo(req.Namespace), files: map[string]artifact.Node{}, staged: map[string]string{}}
	if in.reader, err = bundle.NewReader(r, limits); err != nil {
		return nil, err
	}
	in.manifest = in.reader.Manifest()
	if !req.DryRun {
		if in.stage, err = p.cfg.Artifacts.NewStage(in.id); err != nil {
			return nil, err
		}
		// Whatever ended the import, nobody needs its stage any more.
		defer func() { err = errors.Join(err, in.stage.Remove(context.WithoutCancel(ctx))) }()
	}
	if err := in.readAll(ctx); err != nil {
		return nil, err
	}
	return in.take(ctx)
}

// readAll reads the bundle and returns when what is kept of it is written.
func (in *importing) readAll(ctx context.Context) error {
	if in.stage != nil {
		in.disk = artifact.NewDisk()
	}
	err := in.read(ctx)
	if in.disk != nil {
		if waited := in.disk.Wait(); !errors.Is(err, waited) { // it may be why the reading ended
			err = errors.Join(err, waited)
		}
	}
	if err != nil {
		return err
	}
	return in.p.at("read")
}

// read reads the bundle to its end: objects into memory, the rest to the stage.
func (in *importing) read(ctx context.Context) error {
	if err := in.prepare(); err != nil {
		return err
	}
	for {
		entry, contents, err := in.reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if strings.HasPrefix(entry.Path, bundle.ObjectsDir+"/") {
			err = in.cargo.read(ctx, entry.Path, bufio.NewReader(contents))
		} else {
			err = in.keep(entry)
		}
		if err != nil {
			return err
		}
	}
}

// prepare makes the folders and links of artifacts in the stage, whose names
// there are its own.
func (in *importing) prepare() error {
	for i := range in.manifest.Artifacts {
		a := &in.manifest.Artifacts[i]
		name := fmt.Sprintf("artifact-%d", i)
		in.staged[a.Name] = name
		if in.stage == nil || !a.Folder {
			continue
		}
		if err := in.stage.Mkdir(name); err != nil {
			return err
		}
		for _, folder := range a.Folders {
			if err := in.stage.Mkdir(name + "/" + folder); err != nil {
				return err
			}
		}
		for _, link := range a.Links {
			if err := in.stage.Symlink(name+"/"+link.Path, link.Target); err != nil {
				return err
			}
		}
	}
	for i := range in.manifest.Images {
		if entry := in.manifest.Images[i].Entry; entry != "" {
			in.staged[entry] = fmt.Sprintf("image-%d", i)
		}
	}
	return nil
}

// place is the path in the stage of an entry that is kept.
func (in *importing) place(entry string) string {
	if name, isImage := in.staged[entry]; isImage {
		return name
	}
	owner, sub, _ := strings.Cut(strings.TrimPrefix(entry, bundle.ArtifactsDir+"/"), "/")
	return path.Join(in.staged[owner], sub)
}

// keep puts a file into the stage.
func (in *importing) keep(entry *bundle.Entry) (err error) {
	in.files[entry.Path] = artifact.Node{Kind: artifact.File, Size: entry.Size, SHA256: entry.SHA256}
	if in.stage == nil {
		return in.reader.Copy(io.Discard)
	}
	f, err := in.stage.Create(in.place(entry.Path), entry.Executable)
	if err != nil {
		return err
	}
	out := in.disk.File(f, entry.Size)
	defer func() { err = errors.Join(err, out.Close()) }()
	return in.reader.Copy(out)
}

// take checks what was read and gives it its place.
func (in *importing) take(ctx context.Context) (*Report, error) {
	p, c := in.p, in.cargo
	if err := c.check(ctx, p, in.manifest); err != nil {
		return nil, err
	}
	if in.req.As != "" {
		if err := c.rename(in.req.As); err != nil {
			return nil, err
		}
	}
	contents, err := in.contents()
	if err != nil {
		return nil, err
	}
	if err := in.seal(ctx, contents); err != nil {
		return nil, err
	}
	// From here on nobody else's import may come between the look and the act.
	select {
	case p.publishing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-p.publishing }()
	plan, err := p.plan(ctx, c)
	if err != nil {
		return nil, err
	}
	wanted, err := in.wanted(ctx, contents)
	if err == nil {
		err = in.restore(ctx, plan, wanted)
	}
	if err != nil {
		return nil, err
	}
	report := in.report(plan, len(wanted))
	if report.Missing, err = p.missing(ctx, in.req.Namespace, in.manifest.Needs); err != nil {
		return nil, err
	}
	if in.req.DryRun {
		return report, nil
	}
	report.Images, err = in.publish(ctx, plan, wanted)
	if err != nil {
		return nil, err
	}
	return report, nil
}

// content is the contents of an artifact on their way.
type content struct {
	artifact *skiff.Artifact
	listed   *bundle.Artifact
	// shared is true where the artifact's own run can be writing nothing.
	shared bool
}

// contents joins the contents with the objects that they belong to and holds
// them against their digests.
func (in *importing) contents() ([]content, error) {
	nodes := make(map[string][]artifact.Node, len(in.manifest.Artifacts))
	for i := range in.manifest.Entries {
		entry := in.manifest.Entries[i].Path
		if rest, is := strings.CutPrefix(entry, bundle.ArtifactsDir+"/"); is {
			owner, sub, _ := strings.Cut(rest, "/")
			node := in.files[entry]
			node.Path = sub
			nodes[owner] = append(nodes[owner], node)
		}
	}
	var all []content
	places := map[string]bool{}
	for i := range in.manifest.Artifacts {
		listed := &in.manifest.Artifacts[i]
		a := in.cargo.artifacts[listed.Name]
		object := "artifact " + listed.Name
		if a == nil {
			return nil, refuse(object, damaged, "its contents are there and it is not")
		}
		at, err := in.p.cfg.Artifacts.Locate(in.req.Namespace, a.Spec.URI)
		if err != nil {
			return nil, refuse(object, damaged, "its contents have no place: %w", err)
		}
		if places[at.Key] {
			return nil, refuse(object, damaged, "its place, %s, is another's too", a.Spec.URI)
		}
		places[at.Key] = true
		list := nodes[listed.Name]
		for _, folder := range listed.Folders {
			list = append(list, artifact.Node{Path: folder, Kind: artifact.Folder})
		}
		for _, link := range listed.Links {
			list = append(list, artifact.Node{Path: link.Path, Kind: artifact.Link, Target: link.Target})
		}
		found := artifact.TreeDigest(list)
		if found.Digest != listed.Digest || found.Digest != a.Status.Digest {
			return nil, refuse(object, damaged, "its contents have the digest %s; it is said to have %s", found.Digest, a.Status.Digest)
		}
		own := in.cargo.runs[a.Spec.Run] != nil && strings.Contains(at.Key+"/", "/"+a.Spec.Run+"/")
		all = append(all, content{artifact: a, listed: listed, shared: own})
	}
	return all, nil
}

// seal makes what was staged what an artifact may be, and durable.
func (in *importing) seal(ctx context.Context, contents []content) error {
	if in.stage == nil {
		return nil
	}
	for _, c := range contents {
		if _, err := in.stage.Seal(ctx, in.staged[c.listed.Name]); errors.Is(err, artifact.ErrUnsafe) {
			return refuse("artifact "+c.listed.Name, damaged, "%w", err)
		} else if err != nil {
			return err
		}
	}
	return in.p.at("sealed")
}

// wanted are the contents that are not here. Others in their place are a
// refusal.
func (in *importing) wanted(ctx context.Context, contents []content) ([]content, error) {
	repository := in.p.cfg.Artifacts
	staged := make(map[string]bool, len(contents))
	var wanted []content
	for _, c := range contents {
		staged[c.artifact.Name] = true
		if !repository.Exists(in.req.Namespace, c.artifact.Spec.URI) {
			wanted = append(wanted, c)
		}
	}
	// Artifacts that come without contents must not stand for what is here.
	for _, name := range sortedKeys(in.cargo.artifacts) {
		a := in.cargo.artifacts[name]
		if a.Status.Missing || !in.p.here(a) {
			continue
		}
		found, err := repository.Digest(ctx, in.req.Namespace, a.Spec.URI)
		if err != nil {
			return nil, err
		}
		if found.Digest != a.Status.Digest && (a.Status.Digest != "" || !a.Spec.Imported) {
			return nil, refuse("artifact "+a.Name, "move what is there out of the way first", "at %s there is something else", a.Spec.URI)
		}
	}
	return wanted, nil
}

// restore plans that artifacts whose contents were removed have them again.
func (in *importing) restore(ctx context.Context, plan *plan, wanted []content) error {
	for _, c := range wanted {
		name := c.artifact.Name
		there, err := store.GetAs[*skiff.Artifact](ctx, in.p.cfg.Store, store.Key{Kind: artifactsKind, Namespace: in.req.Namespace, Name: name})
		if errors.Is(err, store.ErrNotFound) {
			c.artifact.Status.Purged = nil // whatever became of them where they come from
			continue
		}
		if err != nil {
			return fmt.Errorf("look for artifact %s: %w", name, err)
		}
		switch purged := there.Status.Purged; {
		case purged == nil:
			continue
		case purged.RemovedAt.IsZero():
			return refuse("artifact "+name, "import it again in a moment", "the contents that it had here are being removed")
		}
		there.Status.Purged = nil
		plan.restore = append(plan.restore, there)
	}
	return nil
}

// report sums up.
func (in *importing) report(plan *plan, artifacts int) *Report {
	r := &Report{Bytes: in.manifest.Size(), Artifacts: artifacts}
	for i := range in.manifest.Images {
		if in.manifest.Images[i].Entry != "" {
			r.Images++
		}
	}
	r.Created, r.Present = names(plan.create), names(plan.present)
	return r
}

// names are the objects of a plan that people know.
func names(list []planned) []string {
	var all []string
	for _, one := range list {
		switch o := one.obj.(type) {
		case *kfp.Pipeline:
			all = append(all, "pipeline "+kfp.NameOf(&o.ObjectMeta))
		case *kfp.PipelineVersion:
			all = append(all, "pipeline version "+kfp.NameOf(&o.ObjectMeta))
		case *skiff.Run:
			all = append(all, "run "+o.Name)
		}
	}
	return all
}

// missing are the needs that nothing here meets.
func (p *Porter) missing(ctx context.Context, namespace string, list []bundle.Need) ([]bundle.Need, error) {
	kinds := map[string]string{core.SecretKind: secretsKind, core.ConfigMapKind: configMapsKind, core.PersistentVolumeClaimKind: claimsKind}
	var missing []bundle.Need
	for _, need := range list {
		kind, known := kinds[need.Kind]
		if !known {
			return nil, refuse("needs", damaged, "it needs a %.80q, which there is not", need.Kind)
		}
		if need.Name == "" || need.Optional {
			continue
		}
		_, err := p.cfg.Store.Get(ctx, store.Key{Kind: kind, Namespace: namespace, Name: need.Name})
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
			missing = append(missing, need)
			err = nil
		}
		if err != nil {
			return nil, err
		}
	}
	return missing, nil
}
