package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// scratchDir, in a pod's folder, holds its emptyDir volumes. No container can
// have that name.
const scratchDir = ".volumes"

// containerName derives a container's name, the key of idempotency.
func containerName(uid, container string, restart int32) string {
	return "skiff-" + uid + "-" + container + "." + strconv.Itoa(int(restart))
}

// controlName is the container's control folder below the pod's: one for each
// restart, since an exit record is written once.
func controlName(container string, restart int32) string {
	if restart == 0 {
		return container
	}
	return container + "." + strconv.Itoa(int(restart))
}

// controlOf is the control folder of the container of that name, if it is one
// of the pod's.
func controlOf(uid, name string) (string, bool) {
	rest, ours := strings.CutPrefix(name, "skiff-"+uid+"-")
	container, number, _ := strings.Cut(rest, ".")
	restart, err := strconv.ParseInt(number, 10, 32)
	if !ours || err != nil {
		return "", false
	}
	return controlName(container, int32(restart)), true
}

// containerSpec is everything that is fixed when the unit's container is
// created. Errors are the user's.
func (r *run) containerSpec(ctx context.Context, u *unit) (runtime.ContainerSpec, error) {
	p, c := r.pod(), u.container
	user, err := userOf(p, c, u.image.User)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	spec := runtime.ContainerSpec{
		Name: u.name, Namespace: p.Namespace, Labels: r.labels(p, c), Image: u.image,
		PodDir: r.dir, Container: controlName(c.Name, u.restart),
		Resources: r.c.limits(c), GPUs: u.gpus, FakeGPUs: r.c.fakeDevices(u.gpus),
		User: user, Env: slices.Clone(r.c.cfg.Env), Hostname: p.Spec.Hostname,
		StopGrace: grace(p), Mounts: slices.Clone(r.c.cfg.Mounts),
	}
	if ext := p.Spec.Skiff; ext != nil {
		spec.Network = ext.Network
	}
	mounts, err := r.mounts(ctx, p, c)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	for _, m := range mounts {
		if m.Memory && m.Path == "/dev/shm" {
			spec.Resources.ShmBytes = m.Size
			continue
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	return spec, nil
}

func (r *run) labels(p *core.Pod, c *core.Container) map[string]string {
	labels := map[string]string{
		core.LabelStore: r.c.store.ID(), core.LabelPod: p.Name, core.LabelPodUID: p.UID, core.LabelContainer: c.Name,
	}
	for _, name := range []string{core.LabelRun, core.LabelTask} {
		if value := p.Labels[name]; value != "" {
			labels[name] = value
		}
	}
	return labels
}

// userOf is "uid[:gid]", empty for the image's own.
func userOf(p *core.Pod, c *core.Container, imageUser string) (string, error) {
	var uid, gid *int64
	nonRoot := false
	if s := p.Spec.SecurityContext; s != nil {
		uid, gid = s.RunAsUser, s.RunAsGroup
		nonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			uid = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			gid = s.RunAsGroup
		}
		if s.RunAsNonRoot != nil {
			nonRoot = *s.RunAsNonRoot
		}
	}
	user := ""
	switch {
	case uid != nil && gid != nil:
		user = fmt.Sprintf("%d:%d", *uid, *gid)
	case uid != nil:
		user = strconv.FormatInt(*uid, 10)
	case gid != nil:
		// A group alone needs a user before it: the image's, or root.
		name, _, _ := strings.Cut(imageUser, ":")
		user = cmp.Or(name, "0") + ":" + strconv.FormatInt(*gid, 10)
	}
	if nonRoot {
		name, _, _ := strings.Cut(cmp.Or(user, imageUser), ":")
		if name == "" || name == "0" || name == "root" {
			return "", fmt.Errorf("container %s: runAsNonRoot is set, but it would run as root; set runAsUser to a number above 0", c.Name)
		}
	}
	return user, nil
}

// limits are what the backend enforces: what was asked for, at most what exists.
func (c *Controller) limits(container *core.Container) runtime.Resources {
	var r runtime.Resources
	if q, limited := container.Resources.Limits[core.ResourceCPU]; limited {
		r.CPUMilli = clamp(q.Milli(), c.cfg.ClampCPUMilli)
	}
	if q, limited := container.Resources.Limits[core.ResourceMemory]; limited {
		r.MemoryBytes = clamp(q.Value(), c.cfg.ClampMemoryBytes)
	}
	return r
}

func clamp(value, most int64) int64 {
	if most > 0 && value > most {
		return most
	}
	return value
}

// mounts resolves a container's volume mounts, outer paths first.
func (r *run) mounts(ctx context.Context, p *core.Pod, c *core.Container) ([]runtime.Mount, error) {
	var list []runtime.Mount
	for _, vm := range c.VolumeMounts {
		i := slices.IndexFunc(p.Spec.Volumes, func(v core.Volume) bool { return v.Name == vm.Name })
		if i < 0 {
			return nil, fmt.Errorf("container %s mounts volume %q, which the pod does not have", c.Name, vm.Name)
		}
		m, err := r.mount(ctx, p, p.Spec.Volumes[i], vm)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", vm.Name, err)
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b runtime.Mount) int {
		return cmp.Compare(strings.Count(path.Clean(a.Path), "/"), strings.Count(path.Clean(b.Path), "/"))
	})
	return list, nil
}

func (r *run) mount(ctx context.Context, p *core.Pod, v core.Volume, vm core.VolumeMount) (runtime.Mount, error) {
	m := runtime.Mount{Path: path.Clean(vm.MountPath), ReadOnly: vm.ReadOnly}
	if !path.IsAbs(m.Path) || m.Path == "/" {
		return m, fmt.Errorf("mountPath %q must be absolute and not /", vm.MountPath)
	}
	var err error
	switch {
	case v.EmptyDir != nil && v.EmptyDir.Medium == "Memory" && mountCount(p, v.Name) == 1 && vm.SubPath == "":
		m.Memory, m.Size = true, v.EmptyDir.SizeLimit.Value()
		return m, nil
	case v.EmptyDir != nil, v.Ephemeral != nil:
		m.HostPath, err = r.scratch(v.Name)
	case v.Secret != nil, v.ConfigMap != nil:
		m.ReadOnly = true // as published, whatever the mount says
		m.HostPath, err = r.settingFolder(ctx, &v)
	case v.PersistentVolumeClaim != nil:
		m.HostPath, err = r.claimFolder(ctx, v.PersistentVolumeClaim)
		m.ReadOnly = m.ReadOnly || v.PersistentVolumeClaim.ReadOnly
	case v.Image != nil:
		m.ReadOnly = true // as published, whatever the mount says
		m.HostPath, err = r.imageFolder(ctx, v.Image, vm.SubPath)
		return m, err
	case r.c.cfg.Volumes == nil:
		err = errors.New("this kind of volume is not available here")
	default:
		readOnlyOnly := false
		m.HostPath, readOnlyOnly, err = r.c.cfg.Volumes.HostPath(ctx, p.Namespace, v)
		if err == nil && readOnlyOnly && !m.ReadOnly {
			err = errors.New("may only be mounted read-only; set readOnly: true on the mount")
		}
	}
	if err == nil && vm.SubPath != "" {
		m.SubPath, err = subPath(m.HostPath, vm.SubPath, m.ReadOnly)
	}
	return m, err
}

func mountCount(p *core.Pod, volume string) int {
	n := 0
	for _, list := range [][]core.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			for _, vm := range list[i].VolumeMounts {
				if vm.Name == volume {
					n++
				}
			}
		}
	}
	return n
}

// scratch makes the folder of an emptyDir volume, open to any user inside: it
// lies below a folder that only the daemon can enter.
func (r *run) scratch(volume string) (string, error) {
	if volume == "" || strings.ContainsAny(volume, "/\x00") || volume == "." || volume == ".." {
		return "", fmt.Errorf("%q is not a volume name", volume)
	}
	dir := filepath.Join(r.dir, scratchDir, volume)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make scratch space: %w", err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		mode := os.FileMode(0o711)
		if d == dir {
			mode = 0o777
		}
		if err := os.Chmod(d, mode); err != nil {
			return "", fmt.Errorf("make scratch space: %w", err)
		}
	}
	return dir, nil
}

// subPath finds a folder within a volume, and makes it where it may be written to.
// What a container wrote there is not trusted: no part of the path may be a link,
// now or when the runtime mounts it.
func subPath(volume, sub string, readOnly bool) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer func() { _ = root.Close() }()
	at := ""
	for part := range strings.SplitSeq(path.Clean(filepath.ToSlash(sub)), "/") {
		at = path.Join(at, part)
		info, err := root.Lstat(at)
		if errors.Is(err, os.ErrNotExist) && !readOnly {
			if err = root.Mkdir(at, 0o777); err == nil {
				if err = root.Chmod(at, 0o777); err == nil { // whatever the umask says
					info, err = root.Lstat(at)
				}
			}
		}
		if err != nil {
			return "", fmt.Errorf("subPath %q: %w", sub, err)
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return "", fmt.Errorf("subPath %q: %s is a link, which is not followed", sub, at)
		}
	}
	return at, nil
}

// command is what the launcher is given. The pod's outputs, directories and
// links belong to its first container.
func (r *run) command(ctx context.Context, u *unit) (launch.Command, error) {
	p, c := r.pod(), u.container
	vars, err := r.variables(ctx, u)
	if err != nil {
		return launch.Command{}, err
	}
	env, lookup := environment(vars)
	cmd := launch.Command{ID: u.name, Env: env, Dir: cmp.Or(c.WorkingDir, u.image.WorkingDir), Grace: grace(p)}
	own, ext := c.Command, p.Spec.Skiff
	first := !u.init && c.Name == p.Spec.Containers[0].Name
	if first && ext != nil && ext.Environment != nil && u.image.PipSatisfied {
		own = ext.Environment.Command
	}
	switch {
	case len(own) > 0:
		cmd.Argv = append(expandAll(own, lookup), expandAll(c.Args, lookup)...)
	case len(c.Args) > 0:
		cmd.Argv = append(slices.Clone(u.image.Entrypoint), expandAll(c.Args, lookup)...)
	default:
		cmd.Argv = append(slices.Clone(u.image.Entrypoint), u.image.Cmd...)
	}
	if len(cmd.Argv) == 0 {
		return cmd, fmt.Errorf("container %s has no command, and neither has its image %s; set command", c.Name, c.Image)
	}
	if len(u.gpus) == 0 {
		cmd.Env = slices.DeleteFunc(cmd.Env, asksForDevices)
	}
	if !first || ext == nil {
		return cmd, nil
	}
	cmd.Hold = time.Duration(max(0, ext.HoldOnFailureSeconds)) * time.Second
	cmd.Directories = append(cmd.Directories, ext.Directories...)
	for _, out := range ext.Outputs {
		cmd.Outputs = append(cmd.Outputs, launch.Output{Name: out.Name, Path: out.Path})
	}
	for _, l := range ext.Links {
		cmd.Links = append(cmd.Links, launch.Link{Path: l.Path, Target: l.Target, Optional: l.Optional})
	}
	if ext.Collect != nil {
		cmd.Collect = &launch.Collect{Manifest: ext.Collect.Manifest, Paths: ext.Collect.Paths}
	}
	return cmd, nil
}

// asksForDevices finds the variables by which a pod without a grant would ask
// for devices all the same.
func asksForDevices(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return name == "NVIDIA_VISIBLE_DEVICES" || name == "CUDA_VISIBLE_DEVICES"
}
