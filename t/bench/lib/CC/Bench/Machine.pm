package CC::Bench::Machine;

# What the figures were measured on, without saying whose it is.

use v5.36;
use POSIX qw(strftime uname);
use CC::Modules;
use CC::Proc;

sub load () { (split ' ', CC::Proc::slurp('/proc/loadavg') // '?')[0] }

sub lines ($opt) {
    my ($cpu) = (CC::Proc::slurp('/proc/cpuinfo') // '') =~ /^model name\s*:\s*(.+)$/m;
    my ($nginx) = CC::Modules::build_info() =~ m{nginx version: (\S+)};
    my $commit = qx(git rev-parse --short HEAD 2>/dev/null) || 'unknown';
    chomp $commit;
    $commit .= ', changed' if qx(git status --porcelain --untracked-files=no 2>/dev/null);
    return (
        'date:    ' . strftime('%Y-%m-%d', gmtime),
        "commit:  $commit",
        'machine: ' . CC::Proc::cpu_count() . ' cores' . ($cpu ? " ($cpu)" : '')
            . ', ' . join(' ', (uname())[0, 2]),
        "nginx:   $nginx",
        "rounds:  $opt->{rounds} of $opt->{seconds} s, load before " . load(),
    );
}

1;
