package portable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// journalName is the file in a stage that says what is about to be published.
const journalName = "journal.json"

// journal is what takes an import back that did not come to its commit.
type journal struct {
	Namespace string `json:"namespace"`
	// Marker is one of the objects that the commit makes or changes; none where
	// it does neither.
	Marker *store.Key `json:"marker,omitempty"`
	// Places are where contents are put, and nothing was.
	Places []place `json:"places,omitempty"`
	// Images are those that were not with the engine before.
	Images []string `json:"images,omitempty"`
}

// place is where an artifact of the stage goes. One that is still in the stage
// was not put there.
type place struct {
	Staged string `json:"staged"`
	URI    string `json:"uri"`
}

// publish gives everything its place. It is all done, or taken back.
// It returns how many images came.
func (in *importing) publish(ctx context.Context, plan *plan, wanted []content) (images int, err error) {
	ops := plan.ops(in.id, in.p.cfg.Now().UTC())
	j := &journal{Namespace: in.req.Namespace}
	if len(ops) > 0 {
		meta := ops[0].Object.Metadata()
		j.Marker = &store.Key{Kind: ops[0].Kind, Namespace: meta.Namespace, Name: meta.Name}
	}
	for _, c := range wanted {
		j.Places = append(j.Places, place{Staged: in.staged[c.listed.Name], URI: c.artifact.Spec.URI})
	}
	err = in.loadImages(ctx, j)
	if err == nil {
		err = in.write(j)
	}
	// Beyond this a client that leaves changes nothing: it is a matter of
	// renames and one transaction.
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		err = in.put(ctx, wanted)
	}
	if err == nil {
		err = in.p.at("published")
	}
	if err == nil {
		_, err = in.p.cfg.Store.Commit(ctx, ops...)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("import: %w", err), in.p.takeBack(ctx, in.stage, j), in.p.dropImages(ctx, j.Images))
	}
	if err := in.p.at("committed"); err != nil {
		return 0, err
	}
	in.nameImages(ctx)
	in.p.log.Info("bundle imported", "import", in.id, "namespace", in.req.Namespace, "objects", len(ops), "artifacts", len(wanted))
	return len(j.Images), nil
}

// write makes the journal durable, and with it all that is staged.
func (in *importing) write(j *journal) error {
	data, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("write the import's journal: %w", err)
	}
	f, err := in.stage.Create(journalName, false)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = in.stage.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the import's journal: %w", err)
	}
	return in.p.at("noted")
}

// put publishes contents.
func (in *importing) put(ctx context.Context, wanted []content) error {
	for i, c := range wanted {
		// One that lies in another of the same import came with that.
		if in.p.cfg.Artifacts.Exists(in.req.Namespace, c.artifact.Spec.URI) {
			found, err := in.p.cfg.Artifacts.Digest(ctx, in.req.Namespace, c.artifact.Spec.URI)
			if err != nil {
				return err
			}
			if found.Digest == c.listed.Digest {
				continue
			}
		}
		err := in.stage.Publish(in.req.Namespace, c.artifact.Spec.URI, in.staged[c.listed.Name], c.shared)
		if errors.Is(err, artifact.ErrUnsafe) {
			return refuse("artifact "+c.listed.Name, damaged, "%w", err)
		}
		if err != nil {
			return err
		}
		if i == 0 {
			if err := in.p.at("first published"); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadImages hands the engine the images that it lacks and notes them. An image
// without a name is seen by nobody; names come after the commit.
func (in *importing) loadImages(ctx context.Context, j *journal) error {
	for i := range in.manifest.Images {
		image := &in.manifest.Images[i]
		if image.Entry == "" {
			continue
		}
		if in.p.cfg.Images == nil {
			return refuse("image "+image.ID, "export it without --images, or run the daemon with Docker", "this runtime has no container images")
		}
		made, err := in.loadImage(ctx, in.staged[image.Entry], image.ID)
		if err != nil {
			return fmt.Errorf("image %s: %w", strings.Join(image.Refs, ", "), err)
		}
		if made {
			j.Images = append(j.Images, image.ID)
		}
	}
	return nil
}

func (in *importing) loadImage(ctx context.Context, staged, id string) (made bool, err error) {
	f, err := in.stage.Open(staged)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return in.p.cfg.Images.LoadImage(ctx, id, f)
}

// nameImages gives images their names, as far as those are free: what runs by
// its digest needs none.
func (in *importing) nameImages(ctx context.Context) {
	for i := range in.manifest.Images {
		image := &in.manifest.Images[i]
		if image.Entry == "" {
			continue
		}
		for _, ref := range image.Refs {
			if err := in.p.cfg.Images.NameImage(ctx, image.ID, ref); err != nil {
				in.p.log.Warn("an imported image has no name", "image", image.ID, "name", ref, "error", err)
			}
		}
	}
}

func (p *Porter) dropImages(ctx context.Context, ids []string) error {
	var err error
	for _, id := range ids {
		if p.cfg.Images != nil {
			err = errors.Join(err, p.cfg.Images.DropImage(context.WithoutCancel(ctx), id))
		}
	}
	return err
}

// takeBack removes what was put in its place. Whatever else is there is not the
// import's.
func (p *Porter) takeBack(ctx context.Context, stage *artifact.Stage, j *journal) error {
	var all error
	for _, place := range j.Places {
		there, err := stage.Exists(place.Staged)
		if err == nil && !there {
			err = p.cfg.Artifacts.Delete(ctx, j.Namespace, place.URI)
		}
		all = errors.Join(all, err)
	}
	return all
}

// Recover clears up after imports that a process did not live to end: what had
// not been committed is taken back. It must be called before anything else may
// write to the artifacts.
func (p *Porter) Recover(ctx context.Context) error {
	stages, err := p.cfg.Artifacts.Stages()
	if err != nil {
		return fmt.Errorf("look for unfinished imports: %w", err)
	}
	for _, id := range stages {
		stage, err := p.cfg.Artifacts.OpenStage(id)
		if err != nil {
			return fmt.Errorf("clear up after import %s: %w", id, err)
		}
		j, err := readJournal(stage)
		if err == nil && j != nil {
			err = p.settle(ctx, id, stage, j)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("clear up after import %s: %w", id, err), stage.Close())
		}
		if err := stage.Remove(ctx); err != nil {
			return fmt.Errorf("clear up after import %s: %w", id, err)
		}
	}
	return nil
}

// readJournal is nil where there is none, or where it was not yet whole: then
// nothing had been published.
func readJournal(stage *artifact.Stage) (*journal, error) {
	f, err := stage.Open(journalName)
	if errors.Is(err, artifact.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	j := &journal{}
	if json.Unmarshal(data, j) != nil {
		return nil, nil
	}
	return j, nil
}

// settle takes an import back unless its commit is in the store.
func (p *Porter) settle(ctx context.Context, id string, stage *artifact.Stage, j *journal) error {
	if j.Marker != nil {
		obj, err := p.cfg.Store.Get(ctx, *j.Marker)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && obj.Metadata().Annotations[core.AnnotationImport] == id {
			return nil
		}
	}
	p.log.Warn("an import was not ended; what it had published is taken back", "import", id, "artifacts", len(j.Places))
	if err := p.takeBack(ctx, stage, j); err != nil {
		return err
	}
	if err := p.dropImages(ctx, j.Images); err != nil {
		// The engine may be down; an image without a name is in nobody's way.
		p.log.Warn("images of an import that was not ended are left", "import", id, "error", err)
	}
	return nil
}
