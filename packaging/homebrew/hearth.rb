# For Homebrew on macOS. `./dev package` fills in where the source is and what it hashes to; it was never run on a Mac.
class Hearth < Formula
  desc "Local language models as a service"
  url "@URL@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license all_of: ["Apache-2.0", "MIT"]

  depends_on "cmake" => :build
  depends_on "pkgconf" => :build
  depends_on "rust" => :build
  depends_on :macos

  service do
    name macos: "hearth.agent"
  end

  def install
    # Where the engine's libraries find each other.
    ENV["CMAKE_INSTALL_RPATH"] = "@loader_path"
    # As in `./dev`, the llama.cpp crates by themselves.
    system "cargo", "build", "--release", "--locked", "-p", "hearth-cpu"
    system "cargo", "build", "--release", "--locked", "-p", "hearthd", "-p", "hearth-ctl"

    bin.install "target/release/hearthd", "target/release/ctl"
    bin.install_symlink "ctl" => "hearthctl"
    engine = "target/release/build/llama-cpp-sys-2-*/out"
    (lib/"hearth/backends").install "target/release/libhearth_cpu.dylib",
                                    *Dir["#{engine}/lib/lib{llama,ggml}*.dylib"], *Dir["#{engine}/backends/libggml-*.so"]

    man1.mkpath
    system bin/"ctl", "man", man1
    system bin/"hearthd", "man", man1
    generate_completions_from_executable(bin/"ctl", "completions")

    inreplace "packaging/launchd/hearth.agent.plist" do |plist|
      plist.gsub! "/usr/local/bin", opt_bin
      plist.gsub! "/usr/local/var", var
    end
    prefix.install "packaging/launchd/hearth.agent.plist"
    pkgshare.install "packaging/launchd/hearth.hearthd.plist", "packaging/hearth.toml"
    (var/"log").mkpath
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/hearthd --version")
    assert_match "cpu", shell_output("#{bin}/hearthd plugin check #{lib}/hearth/backends/libhearth_cpu.dylib")
  end
end
