# The head of the bootstrap image, and the first user instructions of the machine. AT&T syntax.

.section .header, "a"
    .ascii "gem-boot"                   # 0x00
    .quad archive_start                 # 0x08: where the archive of programs will lie
    .quad 0                             # 0x10: its size, filled in by the image builder
    .word 0
    .quad bootstrap_start               # 0x1a: read by the kernel

# The kernel starts us without a stack: map one.
.section .text.start, "ax"
.global bootstrap_start
bootstrap_start:
    movq $0x21000384, %rax              # SYS_FMAP
    movq $-1, %rdi                      # anonymous
    leaq stack_map(%rip), %rsi
    movq $32, %rdx
    syscall
    cmpq $-4096, %rax
    ja 1f
    leaq 0x40000(%rax), %rsp
    xorl %ebp, %ebp
    call bootstrap_main
1:  ud2

.section .rodata
.align 8
stack_map:
    .quad 0                             # offset
    .quad 0x40000                       # size
    .quad 0x00060002                    # PROT_READ, PROT_WRITE, MAP_PRIVATE
    .quad 0                             # anywhere
