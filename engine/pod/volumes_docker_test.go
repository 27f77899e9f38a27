//go:build docker

package pod

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
)

// TestSettingsInContainers: files of secrets and config maps, for any user, gone
// with the pod, and of secrets nothing where the engine shows it.
func TestSettingsInContainers(t *testing.T) {
	r := newDockerRig(t)
	yes, user := true, int64(12345)
	r.secret("s", core.SecretOpaque, map[string]string{"password": secretValue})
	r.configMap("c", map[string]string{"app.yaml": "epochs: 3"})
	p := podNamed("a", "sh", "-c", `cat /etc/s/password; echo; cat /etc/c/app.yaml; echo; ls -a /etc/gone | wc -l; echo "$PASSWORD"; `+
		`touch /etc/s/new 2>/dev/null && echo writable; echo x > /scratch/f && cat /scratch/f; [ "$IP" != "" ] && echo addressed; while [ ! -e /scratch/go ]; do sleep 0.1; done`)
	c := &p.Spec.Containers[0]
	c.Image, c.ImagePullPolicy = "skiffdev/busybox:1", "Never"
	c.SecurityContext = &core.SecurityContext{RunAsUser: &user}
	c.Env = []core.EnvVar{fromSecret("PASSWORD", "s", "password", nil), fromField("IP", "status.podIP")}
	p.Spec.Volumes = []core.Volume{
		{Name: "s", Secret: &core.SecretVolume{SecretName: "s"}}, {Name: "c", ConfigMap: &core.ConfigMapVolume{Name: "c"}},
		{Name: "gone", Secret: &core.SecretVolume{SecretName: "none", Optional: &yes}},
		{Name: "scratch", Ephemeral: &core.EphemeralVolume{}},
	}
	for name, at := range map[string]string{"s": "/etc/s", "c": "/etc/c", "gone": "/etc/gone", "scratch": "/scratch"} {
		c.VolumeMounts = append(c.VolumeMounts, core.VolumeMount{Name: name, MountPath: at})
	}
	r.create(p)
	running := r.running("a")
	folder := filepath.Join(r.dir, "pods", running.UID, settingsDir)
	if out, err := exec.CommandContext(t.Context(), "find", folder, "-name", "password").Output(); err != nil || len(out) == 0 {
		t.Errorf("the files are not where they are looked for: %s, %v", out, err)
	}
	inspected, err := exec.CommandContext(t.Context(), "docker", "inspect", running.Status.ContainerStatuses[0].ContainerID).Output()
	if err != nil || strings.Contains(string(inspected), "secret-value") {
		t.Errorf("the engine shows a secret, or nothing: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "exec", running.Status.ContainerStatuses[0].ContainerID, "touch", "/scratch/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := r.ended("a")
	want := secretValue + "\nepochs: 3\n2\n" + secretValue + "\nx\naddressed\n"
	if text := r.log("a", LogOptions{TailLines: -1}); got.Status.Phase != core.PodSucceeded || text != want {
		t.Errorf("status = %+v\nlog  %q\nwant %q", got.Status, text, want)
	}
	r.eventually("the files are gone", func() bool {
		return exec.CommandContext(t.Context(), "test", "-e", folder).Run() != nil
	})
}
